"""The build that a run starts from: finding one that fits, and making one."""

from __future__ import annotations

import os
import sys
import time

from ..engines.base import Engine
from ..errors import CannotStart
from ..run.builds import Build, parts_of
from ..run.model import Plan, Run
from ..run.names import two_words
from ..run.plan import build_plan
from ..snapshot import Snapshots
from ..store.builds import Builds, Found
from ..store.runs import NameTaken, Stored
from ..supervise.attached import Detached, Watch
from ..supervise.step import Supervisor
from ..text import ago, say, warn

_NAMES_TRIED = 20


class Code:
    """The code that a run would have; git is asked only for what is needed."""

    def __init__(self, snapshots: Snapshots, tree: str) -> None:
        self.tree = tree
        self._snapshots = snapshots
        self._entries: dict[bytes, bytes] | None = None

    def entries(self) -> dict[bytes, bytes]:
        """Its files, and one word for each."""
        if self._entries is None:
            self._entries = self._snapshots.entries(self.tree)
        return self._entries

    def changes(self, old: str) -> list[tuple[bytes, bytes]] | None:
        """What differs from another tree."""
        return self._snapshots.changes(old, self.tree)


class Maker:
    """Finds and makes builds for one plan and one state of its code."""

    def __init__(
        self,
        supervisor: Supervisor,
        engine: Engine,
        plan: Plan,
        tree: str,
        sealed: bytes | None,
        name: str | None = None,
    ) -> None:
        """`sealed`: what the plan takes of the shell; `name`: what the user calls the build."""
        self.supervisor = supervisor
        self.plan = plan
        self.tree = tree
        self.sealed = sealed
        self.name = name
        self.code = Code(supervisor.snapshots, tree)
        self.builds = Builds(supervisor.home)
        platform = supervisor.site_of(plan).platform()
        self.parts = parts_of(plan, engine.find_base(plan), platform)

    def find(self) -> Found:
        """The build that fits, or why there is none."""
        return self.builds.find(self.parts, self.code, self._is_near)

    def _is_near(self, build: Build) -> bool:
        plan = self.plan
        mine = (plan.project, plan.workdir, plan.file)
        return mine == (build.project, build.workdir, build.file)

    def make(self, *, force: bool, fd: int) -> Build | int:
        """The build, made now unless one fits (`force`: in any case); its output goes to `fd`.

        The exit code where there is none in the end. Of two at once the second waits for the first.
        """
        while True:
            with self.builds.held(alone=True):
                found = None if force else self.find().build
                other = None if found else self._under_way()
                stored = None if found or other else self._add()
            if found is not None:
                return found
            if stored is not None:
                return self._watch(stored, fd)
            assert other is not None  # noqa: S101 - one of the three is there
            code = self._wait(other)
            if code != 0:
                return code
            force = False

    def _under_way(self) -> Stored | None:
        """The active run that makes this very build."""
        mine = parts_of(self.plan, "", "")
        for stored in self.supervisor.runs.active():
            run = stored.run
            same = run.plan.stage == "build" and parts_of(run.plan, "", "") == mine
            if same and self.supervisor.look(stored).active:
                return stored
        return None

    def _add(self) -> Stored:
        supervisor = self.supervisor
        for _ in range(_NAMES_TRIED):
            name = self.name or f"build-{two_words(int.from_bytes(os.urandom(4), 'big'))}"
            run = Run(
                id=os.urandom(6).hex(),
                name=name,
                plan=build_plan(self.plan, name),
                status="submitted",
                submitted_at=time.time(),
                tree=self.tree,
                sealed=self.sealed,
            )
            supervisor.snapshots.keep(run.id, self.tree)
            try:
                return supervisor.runs.add(run, supervisor.leases.take)
            except BaseException as error:
                supervisor.snapshots.release(run.id)
                if self.name or not isinstance(error, NameTaken):
                    raise
        raise NameTaken(name)

    def _watch(self, stored: Stored, fd: int) -> Build | int:
        from .watch import watch

        say(f"{stored.run.name}: making the build ({_counted(len(stored.run.plan.commands))})")
        code = watch(self.supervisor, stored, fd=fd)
        if stored.run.status != "done":
            return code
        self.supervisor.leases.drop(stored.seq)
        build = self.builds.get(stored.run.id)
        if build is None:
            message = f"the build of {stored.run.name} was deleted just now"
            raise CannotStart(message, hint="make it again")
        if build.whole:
            warn(
                "this file system does not tell which files are read: the build depends on all of"
                " them, and any change asks for a new one"
            )
        self._drop_older(build)
        return build

    def _wait(self, other: Stored) -> int:
        """Wait until somebody else's build is there; its exit code."""
        name = other.run.name
        say(f"{name} makes this build already; waiting for it")
        loop = Watch(self.supervisor, other, _Nothing(), _leave, _say_nothing)
        try:
            run = loop.run()
        except Detached as signalled:
            return 128 + int(str(signalled))
        finally:
            self.supervisor.leases.drop(other.seq)
            if other.run.active:
                from ..supervise.spawn import ensure_background

                ensure_background(self.supervisor.home, self.supervisor.leases)
        if run.status != "done":
            from .watch import report

            return report(run)
        return 0

    def _drop_older(self, build: Build) -> None:
        """Delete those that were made from the very same things: nobody would take them again."""
        inputs = self.builds.inputs(build.id)
        with self.builds.held(alone=True):
            busy = builds_in_use(self.supervisor)
            for old in self.builds.all():
                same = old.id != build.id and old.parts == build.parts
                if same and old.id not in busy and self.builds.inputs(old.id) == inputs:
                    discard(self.supervisor, self.builds, old)


class _Nothing:
    """Output of a run that is only waited for."""

    def pump(self) -> int:
        return 0

    def idle(self) -> None:
        pass

    def finish(self) -> None:
        pass


def _say_nothing(run: Run) -> None:
    del run


def _leave(number: int) -> None:
    raise Detached(str(int(number)))


def _counted(count: int) -> str:
    return f"{count} command{'' if count == 1 else 's'}"


def builds_in_use(supervisor: Supervisor) -> set[str]:
    """The ids of builds that an active run starts from."""
    return {s.run.build for s in supervisor.runs.active() if s.run.build is not None}


def discard(supervisor: Supervisor, builds: Builds, build: Build) -> None:
    """Delete a build and the image that belongs to it. Raises StoreError, HostError."""
    site = supervisor.sites.at(build.backend, build.remote)
    if build.image is not None:
        engine = site.engine(build.engine)
        engine.discard_image(build.image, build.client, dict(build.base_env))
    site.delete_build(build.id)
    builds.discard(build.id)


def ready_build(maker: Maker, *, make: bool, force: bool, verbose: bool, how: str) -> Build | int:
    """The build that a run will start from, or the exit code of the one that failed.

    `how` is the command that makes one. Raises CannotStart where there is none and none is made.
    """
    found = Found(None) if force else maker.find()
    if found.build is not None:
        if verbose:
            build = found.build
            say(f"it starts from {build.name}, made {ago(build.created, time.time())}")
        return found.build
    if verbose and found.why:
        say(f"no build fits: {found.why}")
    if make or force:
        return maker.make(force=force, fd=sys.stderr.fileno())
    message = "there is no build of this task yet"
    if found.why:
        message = f"the build has to be made anew: {found.why}"
    raise CannotStart(message, hint=f"{how} makes it, and so does the option --build")
