"""Choosing the local port of each port of a run, before anything starts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from ..errors import CannotStart

if TYPE_CHECKING:
    from ..config.shapes import Port

_LAST = 65535
_NONE: Mapping[int, str] = {}


def why_taken(port: int) -> str | None:
    """Why nothing of ours could listen on 127.0.0.1:`port`; None when it is free.

    Somebody who listens on 127.0.0.1, on ::1 or on every address has it; connections of a server
    that has just ended do not. No socket is left.
    """
    import socket

    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            probe = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue  # no IPv6 here
        with probe:
            # Linux lets no second listener in with this, but does ignore closed connections.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            why = _bind_problem(probe, host, port)
        if why is not None:
            return why
    return None


def choose(
    ports: Iterable[Port], reserved: Mapping[int, str] = _NONE, *, shared: bool = True
) -> tuple[tuple[int, int], ...]:
    """(run, local) for each of `ports`, in their order.

    `reserved` are ports promised to other active runs, and the runs' names: their local ports and,
    where runs share the machine's ports, their run ports. `shared` says that this run shares them
    too (a process on this machine): then its app listens on the run port itself, which so must be
    free as well. `*` never fails: when its run port is taken it gets another local port.

    Raises CannotStart for a port that is taken, naming who has it where that can be seen.
    """
    wanted = tuple(ports)
    fixed = {port.local for port in wanted if port.local is not None}
    for port in wanted:
        if port.local is None:
            continue
        _must_be_free(port.local, reserved, f"local port {port.local}", port.run)
        if shared and port.run != port.local:
            _must_be_free(port.run, reserved, f"port {port.run} of the run", None)
    unusable = {*reserved, *fixed, *(port.run for port in wanted if shared)}
    chosen: list[tuple[int, int]] = []
    for port in wanted:
        local = port.local
        if local is None:
            own = shared and port.run not in fixed and port.run not in reserved
            local = _first_free(port.run, unusable - {port.run} if own else unusable)
            unusable.add(local)
        chosen.append((port.run, local))
    return tuple(chosen)


def _must_be_free(port: int, reserved: Mapping[int, str], what: str, run: int | None) -> None:
    if port in reserved:
        why: str | None = f"promised to the active run {reserved[port]}"
    else:
        why = why_taken(port)
    if why is None:
        return
    if run is None:
        hint = "a run on this machine shares its ports: let the app listen on another one"
    else:
        hint = f'choose another one, or let dstack choose: "*:{run}"'
    message = f"{what} is {why}"
    raise CannotStart(message, hint=hint)


def _first_free(first: int, unusable: Collection[int]) -> int:
    for port in range(first, _LAST + 1):
        if port not in unusable and why_taken(port) is None:
            return port
    message = f"no local port from {first} up is free"
    raise CannotStart(message)


def _bind_problem(probe: object, host: str, port: int) -> str | None:
    import errno
    import socket

    assert isinstance(probe, socket.socket)  # noqa: S101 - the import stays off the start path
    try:
        probe.bind((host, port))
    except PermissionError:
        return "reserved for root"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            from .listening import describe

            who = describe(port)
            return f"taken by {who}" if who else "taken"
        if error.errno != errno.EADDRNOTAVAIL:
            return f"not usable ({error.strerror})"
    return None
