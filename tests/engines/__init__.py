"""Real container engines for the tests: Docker, Podman, registries and images, made from nothing.

`services` starts and stops them, `fixtures` hands them to tests, `daemon` is a Docker daemon of a
test's own. Nothing is fetched from a registry: the images are slices of the machine itself.
"""
