"""Ports of a run on another machine: sockets of this machine that lead there through ssh.

Whoever connects to a local port is led to such a socket once the app listens there. ssh itself
would accept at once, and could only hang up where nothing listens yet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HostError
from ..run.model import Run

if TYPE_CHECKING:
    from .far import FarSite
    from .sites import Sites

_KNOWN = 5.0  # seconds for which it holds that an app listens
# Prints at which address somebody listens on the port. proc_net_tcp.rst: the second column is the
# local address, in hexadecimal, and the state of who listens is 0A.
_LISTENS = """
listens() { grep -q "^ *[0-9]*: [0-9A-F]*:$1 [0-9A-F:]* 0A " "/proc/net/$2" 2>/dev/null; }
if [ ! -r /proc/net/tcp ] || listens "$1" tcp; then echo 127.0.0.1
elif listens "$1" tcp6; then echo ::1; fi
"""

Place = tuple[str, int]


class Tunnels:
    """The sockets of one run, made when somebody connects. For the forwarder's thread alone."""

    def __init__(self, sites: Sites, run: Callable[[], Run]) -> None:
        """`run` gives the run as it is now: a retry may be found at another address."""
        self._sites = sites
        self._run = run
        self._site: FarSite | None = None
        self._open: dict[Place, tuple[str, AbstractContextManager[None]]] = {}
        self._known: dict[Place, tuple[float, Place]] = {}
        self._made = 0

    def where(self, port: int) -> str | None:
        """The socket that leads to a run port; None where nothing can be reached now."""
        try:
            return self._where(port)
        except (HostError, OSError):
            return None  # asked again for as long as who connects waits

    def close(self) -> None:
        """End all of them; the forwarder has ended."""
        for place in list(self._open):
            self._drop(place)
        host = self._site.host() if self._site is not None else None
        if host is not None:
            host.close()

    def _where(self, port: int) -> str | None:
        run = self._run()
        if run.attempt is None or run.attempt.exit is not None:
            return None
        site = self._twin(run)
        directory = site.home.job(run.id, run.attempt.number)
        place = site.engine(run.plan.engine).address(directory, port)
        if place is None:
            return None
        known = self._known.get(place)
        if known is None or time.monotonic() >= known[0]:
            found = self._listens(site, run, place)
            if found is None:
                return None
            known = self._known[place] = (time.monotonic() + _KNOWN, found)
        return self._socket(site, known[1])

    def _twin(self, run: Run) -> FarSite:
        if self._site is None:
            site = self._sites.of(run.plan)
            self._site = site.twin()  # type: ignore[attr-defined]  # the run is on another machine
        return self._site

    def _listens(self, site: FarSite, run: Run, place: Place) -> Place | None:
        """Where the app listens; None while it does not."""
        if run.plan.image is not None:
            return place  # in a network of its own, which nobody else sees into
        argv = ["/bin/sh", "-c", _LISTENS, "sh", f"{place[1]:04X}"]
        address = site.host().run(argv, timeout=_KNOWN).out.decode("ascii", "replace").strip()
        return (address, place[1]) if address else None

    def _socket(self, site: FarSite, place: Place) -> str:
        """The path; made anew where the connection broke, which ended what led through it."""
        if place in self._open:
            path = self._open[place][0]
            if _is_served(path):
                return path
            self._drop(place)
        self._made += 1
        path = f"{site.sockets()}/port-{os.getpid()}-{self._made}"
        forward = site.host().forward(Path(path), place)
        forward.__enter__()
        self._open[place] = (path, forward)
        return path

    def _drop(self, place: Place) -> None:
        path, forward = self._open.pop(place)
        try:
            forward.__exit__(None, None, None)
        except (HostError, OSError):
            Path(path).unlink(missing_ok=True)


def _is_served(path: str) -> bool:
    """Whether ssh still listens there; a connection would be one to the app."""
    try:
        with open("/proc/net/unix") as table:
            return any(line.rstrip("\n").endswith(f" {path}") for line in table)
    except OSError:
        return os.path.exists(path)
