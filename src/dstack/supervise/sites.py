"""WHERE runs are: a host, dstack's folder on it, and what lies between it and this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines import get_engine
from ..engines.base import Engine
from ..errors import HostError
from ..paths import Home
from ..run.model import Plan, Remote, Run
from ..snapshot import Progress, Snapshots

if TYPE_CHECKING:
    from ..config.backends import Backend
    from ..hosts.base import Host
    from ..hosts.ssh import SshHost
    from ..run.made import Made
    from ..run.observation import Unknown
    from .far import FarSite


class Site:
    """This machine. `home` is the layout of dstack's folder where runs are."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._engines: dict[str, Engine] = {}

    @property
    def remote(self) -> Remote | None:
        """How another machine is found again."""
        return None

    @property
    def far(self) -> bool:
        """Whether it is another machine."""
        return False

    def host(self) -> Host | None:
        """The host; None is this machine."""
        return None

    def begin(self) -> bool:
        """Begin to connect, without waiting for it. Whether it can be asked without waiting."""
        return True

    def foresee(self, snapshots: Snapshots, project: Path, *, gpus: bool) -> None:
        """A run of the project is about to be planned, and started: ask what that will need."""

    def away(self) -> Unknown | None:
        """Why it is not asked now: it did not answer just before."""
        return None

    def told(self, problem: Unknown | None) -> None:
        """It was asked, and answered (None) or did not."""

    def engine(self, name: str) -> Engine:
        """The engine of that name on it. Raises UsageError."""
        if name not in self._engines:
            self._engines[name] = get_engine(name, self.home, self.host())
        return self._engines[name]

    def at_once(self) -> AbstractContextManager[None]:
        """Inside, what is only done need not be waited for one by one."""
        return nullcontext()

    def lay_code(
        self,
        snapshots: Snapshots,
        run: Run,
        progress: Callable[[Progress], None] | None,
        *,
        fresh: bool,
    ) -> None:
        """Make the run's folder of code, unless it is there (`fresh`: it cannot be).

        Raises StoreError, HostError.
        """
        if run.tree is not None:
            snapshots.checkout(run.tree, self.home.run(run.id) / "code")

    def platform(self) -> str:
        """Where builds of this site run."""
        found = os.uname()
        return f"{found.sysname}-{found.machine}".lower()

    def read_made(self, plan: Plan, directory: Path) -> tuple[Made, bool]:
        """What a build stage made, and whether every file counts. Raises StoreError, HostError."""
        from ..engines.builds import read_made

        return read_made(plan, directory)

    def take_result(self, run_id: str, directory: Path, aside: Path, made: Made) -> int:
        """Move what the stage left to where the build is; its size in bytes.

        `aside` is where its record is put together here. Raises StoreError, HostError.
        """
        from ..engines.builds import folder_size, take_result

        take_result(self.home.run(run_id), directory, aside, made)
        return folder_size(aside)

    def delete_build(self, build_id: str) -> None:
        """Delete what another machine has of a build. Raises HostError."""

    def forget(self, run: Run) -> None:
        """Delete what this machine keeps of a run that is deleted where it was."""


class Sites:
    """All sites that this process has to do with, each made once."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._here = Site(home)
        self._far: dict[tuple[str, Remote], FarSite] = {}
        self._begun: dict[str, SshHost] = {}  # by the backend's name
        self._asks = True

    def ask_nobody(self) -> None:
        """From now on no machine is connected to that would need a person to type something."""
        self._asks = False

    def of(self, plan: Plan) -> Site:
        """Where the runs of a plan are."""
        return self.at(plan.backend, plan.remote)

    def at(self, name: str, remote: Remote | None) -> Site:
        """The site of that name; None is this machine."""
        if remote is None:
            return self._here
        key = (name, remote)
        if key not in self._far:
            from .far import FarSite
            from .hosts import make_host

            host = make_host(name, remote, self._home)
            host.asks = self._asks
            self._far[key] = FarSite(host, remote, self._home)
        return self._far[key]

    def begin(self, backends: Sequence[Backend]) -> None:
        """Begin to connect to all of them; what ssh has to ask a person it asks in `reach`."""
        for backend in backends:
            if backend.type != "local" and backend.name not in self._begun:
                with suppress(HostError):  # `reach` says it again
                    self._host(backend).connect(quiet=True)

    def hasten(self, backend: Backend) -> None:
        """Begin to connect, where that is certain to ask nobody anything. Raises HostError."""
        if backend.type != "local":
            from ..hosts.ssh_master import can_ask

            host = self._host(backend)
            if host.shares() or not can_ask():
                host.connect(quiet=True)

    def settled(self, backend: Backend, seconds: float) -> bool:
        """Whether `reach` has nothing to wait for after `begin`; waits for that so long at most."""
        return backend.name not in self._begun or self._begun[backend.name].settled(seconds)

    def leave(self, backends: Sequence[Backend]) -> None:
        """These are not needed after all."""
        for backend in backends:
            if backend.name in self._begun:
                self._begun.pop(backend.name).close()

    def reach(self, backend: Backend) -> Site:
        """The site of a backend, connected where it is another machine. Raises HostError."""
        if backend.type == "local":
            return self._here
        from .far import reach

        site = reach(self._host(backend), self._home)
        return self._far.setdefault((backend.name, site.remote), site)

    def _host(self, backend: Backend) -> SshHost:
        if backend.name not in self._begun:
            from .hosts import host_of

            host = self._begun[backend.name] = host_of(backend, self._home)
            host.asks = self._asks
        return self._begun[backend.name]

    def close(self) -> None:
        """Let go of all connections."""
        for site in self._far.values():
            host = site.host()
            if host is not None:
                host.close()
        for begun in self._begun.values():
            begun.close()
