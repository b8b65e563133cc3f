"""Which engine a task gets: what its backend says, and what this machine has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..config.backends import Backend
from ..errors import CannotStart, HostError
from ..hosts.base import Host
from .clients import CLIENTS, DOCKER, PODMAN, Client, environment_of

_TIMEOUT = 10.0  # seconds that an engine has to say its version


class Choice(msgspec.Struct, frozen=True):
    """An engine; for containers its command, and the variables that lead it to its service."""

    engine: str
    client: str = ""
    environment: Mapping[str, str] = {}


PROCESS = Choice("process")


def choose_engine(backend: Backend, *, image: bool, host: Host | None = None) -> Choice:
    """The engine for a task with or without an image, on `host` or this machine.

    `auto` is processes for a task without an image, else Docker, or Podman where Docker is not
    installed or does not answer. Raises CannotStart, HostError.
    """
    if backend.engine == "process" or (backend.engine == "auto" and not image):
        return PROCESS
    if host is None:
        from ..hosts.local import LocalHost

        host = LocalHost()
    if backend.engine != "auto":
        client = CLIENTS[backend.engine]
        path = host.commands([client.name]).get(client.name)
        if path is None:
            message = f"backend {backend.name} runs containers with {client.product}: there is none"
            raise CannotStart(message, hint=f"install it: {client.install}")
        return _choice(client, path, host)
    found = host.commands(list(CLIENTS))
    if not found:
        where = "this machine" if host.name == "local" else backend.name
        message = f"the task has an image, and there is neither Docker nor Podman on {where}"
        raise CannotStart(message, hint=f"install Docker ({DOCKER.install}) or Podman")
    if "docker" in found and ("podman" not in found or _answers(found["docker"], host)):
        return _choice(DOCKER, found["docker"], host)
    return _choice(PODMAN, found["podman"], host)


def version_of(client: Client, path: str, host: Host) -> str:
    """What the engine says that it is. Raises HostError with its own words."""
    form = "{{.Server.Version}}" if client is DOCKER else "{{.Client.Version}}"
    done = host.run([path, "version", "--format", form], timeout=_TIMEOUT)
    said = done.out.decode("utf-8", "replace").strip()
    if done.code != 0 or not said:
        lines = done.err.decode("utf-8", "replace").strip().splitlines()
        raise HostError(lines[-1] if lines else f"{client.product} says nothing")
    return said


def _choice(client: Client, path: str, host: Host) -> Choice:
    found = environment_of(client, host.environ)
    if client is DOCKER:
        # The run stays where it was put when the user turns to another context.
        context = _context(host)
        if context is not None:
            found["DOCKER_CONTEXT"] = context
    return Choice(client.name, path, found)


def _context(host: Host) -> str | None:
    """The context that the user's own settings of Docker name, where the environment does not."""
    environ = host.environ
    if environ.get("DOCKER_HOST") or environ.get("DOCKER_CONTEXT"):
        return None
    folder = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME", ""), ".docker")
    try:
        (settings,) = host.read_many([Path(folder) / "config.json"])
        found = msgspec.json.decode(settings.data) if settings is not None else None
    except (HostError, msgspec.DecodeError):
        return None
    name = found.get("currentContext") if isinstance(found, dict) else None
    return name if isinstance(name, str) and name else None


def _answers(path: str, host: Host) -> bool:
    """Whether Docker is there: a connection to its socket says so at once."""
    environ = host.environ
    kind, _, address = environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    if kind == "unix" and not environ.get("DOCKER_CONTEXT") and _context(host) is None:
        try:
            link = host.dial(address)
        except HostError:
            return False
        if link is not None:
            link.close()
            return True
    try:
        version_of(DOCKER, path, host)
    except HostError:
        return False
    return True
