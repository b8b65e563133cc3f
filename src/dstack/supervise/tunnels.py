"""Ports of a run on another machine: sockets of this machine that lead there through ssh.

Whoever connects to a local port is led to such a socket once the app listens there. ssh itself
would accept at once, and could only hang up where nothing listens yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.base import Address, Reach
from ..errors import HostError
from ..run.model import Run
from .ways import Ways

if TYPE_CHECKING:
    from .far import FarSite
    from .sites import Sites

_KNOWN = 5.0  # seconds for which it holds that the run's app listens


class Tunnels:
    """The sockets of one run, made when somebody connects. For the forwarder's thread alone."""

    def __init__(self, sites: Sites, run: Callable[[], Run], notices: list[str]) -> None:
        """See Ways."""
        self._sites = sites
        self._ways = Ways(run, self._ask, notices, hold=_KNOWN)
        self._site: FarSite | None = None
        self._open: dict[Address, tuple[str, AbstractContextManager[None]]] = {}
        self._made = 0

    def where(self, port: int) -> str | None:
        """The socket that leads to a run port; None where nothing can be reached now."""
        address = self._ways.find(port)
        if address is None or self._site is None:
            return None
        try:
            return self._socket(self._site, address)
        except (HostError, OSError):
            return None  # asked again for as long as who connects waits

    def close(self) -> None:
        """End all of them; the forwarder has ended."""
        for place in list(self._open):
            self._drop(place)
        host = self._site.host() if self._site is not None else None
        if host is not None:
            host.close()

    def _ask(self, run: Run, port: int) -> Reach:
        site = self._site
        if site is None:
            # The run is on another machine.
            site = self._site = self._sites.of(run.plan).twin()  # type: ignore[attr-defined]
        assert run.attempt is not None  # noqa: S101 - Ways looks
        directory = site.home.job(run.id, run.attempt.number)
        return site.engine(run.plan.engine).address(directory, port)

    def _socket(self, site: FarSite, place: Address) -> str:
        """The path; made anew where the connection broke, which ended what led through it."""
        if place in self._open:
            path = self._open[place][0]
            if _is_served(path):
                return path
            self._drop(place)
        if not self._made:
            _sweep(site.sockets())
        self._made += 1
        path = f"{site.sockets()}/port-{os.getpid()}-{self._made}"
        forward = site.host().forward(Path(path), place)
        forward.__enter__()
        self._open[place] = (path, forward)
        return path

    def _drop(self, place: Address) -> None:
        path, forward = self._open.pop(place)
        try:
            forward.__exit__(None, None, None)
        except (HostError, OSError):
            Path(path).unlink(missing_ok=True)


def _sweep(folder: str) -> None:
    """Delete the sockets that commands left which were killed."""
    for name in os.listdir(folder):
        pid = name.removeprefix("port-").partition("-")[0]
        if name.startswith("port-") and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            with suppress(OSError):
                os.unlink(f"{folder}/{name}")


def _is_served(path: str) -> bool:
    """Whether ssh still listens there; a connection would be one to the app."""
    if not os.path.exists(path):
        return False  # somebody took ours for a dead one's: who is in another container, say
    try:
        with open("/proc/net/unix") as table:
            return any(line.rstrip("\n").endswith(f" {path}") for line in table)
    except OSError:
        return True
