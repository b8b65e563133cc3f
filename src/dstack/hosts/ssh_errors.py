"""What `ssh` said when it could not do it -> a sentence, and what to do about it. Pure."""

from __future__ import annotations

import re

from ..errors import HostError, HostUnreachable

# (what ssh prints, the sentence after the host's name, the hint, whether it may mend itself)
_KNOWN: tuple[tuple[str, str, str, bool], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "its host key is another one than before",
        "somebody may be in between, or the machine was set up anew: ask who runs it, then"
        " `ssh-keygen -R {name}` and `ssh {host}` once",
        False,
    ),
    (
        r"Host key verification failed|No .* host key is known for",
        "its host key is not known here",
        "connect once with `ssh {host}`, and compare the fingerprint that it shows",
        False,
    ),
    (
        r"Could not resolve hostname|Name or service not known|nodename nor servname",
        "there is no machine of that name",
        "check `host` in config.yml, ~/.ssh/config, and the network",
        True,
    ),
    (
        r"Too many authentication failures",
        "too many keys were tried",
        "name the right one with `identity_file`, and set `IdentitiesOnly yes` for it in"
        " ~/.ssh/config",
        False,
    ),
    (
        r"Permission denied|no mutual signature|Authentication failed",
        "it does not let this user in: {said}",
        "does `ssh {host}` work? A key is named with `identity_file`; one with a passphrase must"
        " be in the agent (`ssh-add`) where nobody can type it",
        False,
    ),
    (
        r"UNPROTECTED PRIVATE KEY|bad permissions",
        "ssh does not take the key: others can read it",
        "chmod 600 the key",
        False,
    ),
    (r"Bad configuration option|bad configuration options", "{said}", "see ~/.ssh/config", False),
    (
        r"Unable to negotiate",
        "ssh there and here have no algorithm in common: {said}",
        "one of the two is very old",
        False,
    ),
    (r"Connection refused", "nothing answers at its ssh port", "is sshd running there?", True),
    (
        r"Connection timed out|Operation timed out|timed out during banner",
        "it does not answer",
        "",
        True,
    ),
    (
        r"No route to host|Network is unreachable|Host is down",
        "there is no way to it: {said}",
        "",
        True,
    ),
)
_FALLBACK_HINT = "does `ssh {host}` work?"
# What says nothing about why.
_NOISE = re.compile(r"^(\*\*|Warning: Permanently added|@|mux_client_|ControlSocket )")


def ssh_error(host: str, said: str) -> HostError:
    """The error for what ssh printed on stderr, when it exited with its own 255."""
    lines = [line.strip() for line in said.splitlines()]
    lines = [line for line in lines if line and not _NOISE.match(line)]
    last = lines[-1] if lines else ""
    for pattern, sentence, hint, transient in _KNOWN:
        found = re.search(pattern, said)
        if found:
            name = host.rpartition("@")[2]
            line = next((line for line in lines if re.search(pattern, line)), last)
            values = {"host": host, "name": name, "said": _short(line)}
            return _error(
                host, sentence.format(**values), hint.format(**values), transient=transient
            )
    if not last:
        return _error(host, "the connection broke off", "", transient=True)
    return _error(host, _short(last), _FALLBACK_HINT.format(host=host), transient=True)


def _error(host: str, what: str, hint: str, *, transient: bool) -> HostError:
    kind = HostUnreachable if transient else HostError
    return kind(f"{host} cannot be reached: {what}", hint=hint or None)


def _short(line: str) -> str:
    """Without the prefixes `ssh: connect to host X port 22:` and `user@host:`."""
    line = re.sub(r"^ssh: (connect to host \S+ port \d+: )?", "", line)
    line = re.sub(r"^\S+@\S+: ", "", line)
    return line.rstrip(".")
