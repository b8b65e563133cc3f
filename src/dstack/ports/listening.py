"""Who listens on this machine's TCP ports, as Linux tells in /proc.

Facts from proc(5) and the kernel's Documentation/networking/proc_net_tcp.rst: one line a socket,
listening ones (state 0A) first, addresses in hexadecimal with each 32-bit word in the machine's
own byte order, the tenth column the socket's inode. Where there is no /proc, nothing is known.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

_LISTENING = "0A"
_TABLES = (("/proc/net/tcp", 4), ("/proc/net/tcp6", 6))


class Listener:
    """One listening socket: `family` 4 or 6, the port, the socket's inode."""

    __slots__ = ("family", "inode", "port")

    def __init__(self, family: int, port: int, inode: int) -> None:
        self.family = family
        self.port = port
        self.inode = inode


def listeners() -> list[Listener]:
    """All listening TCP sockets of this machine (of this network namespace)."""
    return [listener for path, family in _TABLES for listener in _read(path, family)]


def _read(path: str, family: int) -> Iterator[Listener]:
    try:
        with open(path) as table:
            next(table, None)
            for line in table:
                columns = line.split()
                # Connections follow: there may be a hundred thousand of them.
                if columns[3] != _LISTENING:
                    return
                port = int(columns[1].rpartition(":")[2], 16)
                yield Listener(family, port, int(columns[9]))
    except OSError:
        return


def owners(port: int) -> list[int]:
    """The processes that hold a listening socket of this port, of those that we may look into.

    Looks through every process's open files: tens of milliseconds on a busy machine.
    """
    sockets = {f"socket:[{found.inode}]" for found in listeners() if found.port == port}
    return [pid for pid in _processes() if _holds(pid, sockets)] if sockets else []


def describe(port: int) -> str | None:
    """`python3 (process 4711)`: who listens there; None when that cannot be seen."""
    for pid in owners(port):
        try:
            with open(f"/proc/{pid}/comm") as file:
                return f"{file.read().strip()} (process {pid})"
        except OSError:
            continue
    return None


def _processes() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _holds(pid: int, sockets: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        try:
            if os.readlink(f"{folder}/{name}") in sockets:
                return True
        except OSError:
            continue
    return False
