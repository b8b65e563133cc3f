"""Where the app of a job listens, as listens.sh finds out on its host."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..hosts.base import Host
from .base import Address, Reach

_TIMEOUT = 5.0
NOWHERE = Reach()


def of_process(host: Host, shell: Sequence[str], directory: Path, port: int) -> Reach:
    """Where a job that shares its host's ports listens. One round trip. Raises HostError."""
    name = f"{directory.parent.name}-{directory.name}"
    return parse(_ask(host, shell, "process", port, name, os.fspath(directory)), port)


def of_container(
    host: Host, shell: Sequence[str], first: tuple[int, str], address: Address, port: int
) -> Reach:
    """`address`, where anything listens on the port in the container. Raises HostError.

    `first` is the container's first process and the container's id. One round trip.
    """
    pid, name = first
    # The engine's own proxy may get at what listens on the container's 127.0.0.1.
    local = "yes" if address[0] == "127.0.0.1" else ""
    said = _ask(host, shell, "inside", port, str(pid), name, local)
    return Reach(address) if said in ("at", "unseen") else NOWHERE


def of_shared(host: Host, shell: Sequence[str], first: tuple[int, str], port: int) -> Reach:
    """Where the app of a container listens that has its host's network. As for a process."""
    pid, name = first
    return parse(_ask(host, shell, "shared", port, str(pid), name), port)


def parse(said: str, port: int) -> Reach:
    """What listens.sh says of a process. Pure."""
    word, _, rest = said.partition(" ")
    if word == "at":
        return Reach((rest, port))
    return Reach(foreign=rest) if word == "foreign" else NOWHERE


def _ask(host: Host, shell: Sequence[str], kind: str, port: int, *about: str) -> str:
    argv = [*shell, "-c", script(), "sh", kind, f"{port:04X}", *about]
    return host.run(argv, timeout=_TIMEOUT).out.decode("utf-8", "replace").strip()


def script() -> str:
    """listens.sh, with what it needs of marked.sh."""
    here = Path(__file__).parent
    names = ("marked.sh", "listens.sh")
    return "\n".join((here / name).read_text(encoding="utf-8") for name in names)
