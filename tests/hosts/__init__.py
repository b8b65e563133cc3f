"""Real hosts for the tests: each an `sshd` with network, name, disk and processes of its own.

`services` starts and stops a set of them, `fixtures` hands them to tests, `host` is one of them
with all that can happen to it, `client` is the user's own `ssh` that knows them.
"""
