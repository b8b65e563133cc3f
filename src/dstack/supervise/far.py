"""Runs on another machine: what is sent there, and what is kept of them here."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from ..engines.facts import foresee_facts
from ..engines.far_builds import delete_build, read_made, take_result
from ..errors import HostError, StoreError
from ..hosts.base import Host
from ..hosts.ssh import SshHost
from ..hosts.ssh_master import socket_folder
from ..paths import Home
from ..run.made import Made
from ..run.model import Plan, Remote, Run
from ..run.observation import Unknown, unknown_of
from ..snapshot import Progress, Snapshots
from .hosts import make_host
from .sites import Site

# Seconds before a host is asked again that did not answer: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0
# The same of one that wants something typed: too many logins that fail are an attack to some.
_REFUSED_PAUSE = 60.0


def reach(host: SshHost, here: Home) -> FarSite:
    """Connect to a host: only that says where dstack's folder is. Raises HostError."""
    options = host.options
    return FarSite(host, Remote(options.host, str(host.root), options.identity_file), here)


class FarSite(Site):
    """A host that `ssh` reaches."""

    def __init__(self, host: Host, remote: Remote, here: Home) -> None:
        """`here` is dstack's folder on this machine."""
        super().__init__(Home(Path(remote.root)))
        self._host = host
        self._remote = remote
        self._here = here
        self._problem: Unknown | None = None
        self._pause = 0.0
        self._until = 0.0

    def twin(self) -> FarSite:
        """The same host over a connection of its own, for another thread."""
        return FarSite(
            make_host(self._host.name, self._remote, self._here), self._remote, self._here
        )

    def sockets(self) -> str:
        """A folder of this machine for the sockets that lead there."""
        return socket_folder(self._here.root)

    @property
    def remote(self) -> Remote:
        """See Site."""
        return self._remote

    @property
    def far(self) -> bool:
        """See Site."""
        return True

    def host(self) -> Host:
        """See Site."""
        return self._host

    def begin(self) -> bool:
        """See Site."""
        if self.away() is not None:
            return True
        try:
            if self._host.ready():
                return True
            self._host.connect()
            return self._host.ready()
        except HostError as error:
            # Who asks now is told the same without waiting for it again.
            self.told(unknown_of(error))
            return True

    def foresee(self, snapshots: Snapshots, project: Path, *, gpus: bool) -> None:
        """See Site."""
        with suppress(HostError):
            foresee_facts(self._host, self.home, gpus=gpus)
            snapshots.foresee_send(project, self._host, self.home.code)

    def away(self) -> Unknown | None:
        """See Site."""
        if self._problem is None or time.monotonic() >= self._until:
            return None
        # Somebody may have typed what is wanted, and made the connection for all.
        if self._problem.asks and self._host.shares():
            return None
        return self._problem

    def told(self, problem: Unknown | None) -> None:
        """See Site."""
        if problem is not None and self.away() is not None:
            # Nobody asked it: that is our own answer, and must not put off the next question.
            return
        self._problem = problem
        if problem is None:
            self._pause = 0.0
            return
        pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._pause = _REFUSED_PAUSE if problem.asks else pause
        self._until = time.monotonic() + self._pause

    def at_once(self) -> AbstractContextManager[None]:
        """See Site."""
        return self._host.batch()

    def lay_code(
        self,
        snapshots: Snapshots,
        run: Run,
        progress: Callable[[Progress], None] | None,
        *,
        fresh: bool,
    ) -> None:
        """See Site."""
        if run.tree is None:
            return
        places = (self.home.code, self.home.run(run.id) / "code")
        project = Path(run.plan.project)
        snapshots.send(project, run.tree, self._host, places, progress, fresh=fresh)

    def platform(self) -> str:
        """See Site."""
        return self._host.platform

    def read_made(self, plan: Plan, directory: Path) -> tuple[Made, bool]:
        """See Site."""
        return read_made(self._host, plan, directory)

    def take_result(self, run_id: str, directory: Path, aside: Path, made: Made) -> int:
        """See Site. There the build is there for good; here it is known when it is recorded."""
        try:
            aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {aside}: {error.strerror}") from None
        target = self.home.build(run_id)
        there = target.with_name(f".new-{run_id}")
        folders = (self.home.run(run_id), directory)
        return take_result(self._host, folders, (there, target), made)

    def delete_build(self, build_id: str) -> None:
        """See Site."""
        delete_build(self._host, self.home.build(build_id))

    def forget(self, run: Run) -> None:
        """See Site."""
        from ..hosts.local import LocalHost

        LocalHost().delete(self._here.run(run.id))
