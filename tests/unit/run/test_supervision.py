"""Two supervisors, crashes between effect and record, a user who stops and restarts.

Nothing is started twice, nothing is lost, nothing is left, and every run reaches an end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dstack.config.shapes import Retry
from dstack.engines.base import Engine, Facts, Job
from dstack.paths import Home
from dstack.run.events import Restarted
from dstack.run.model import Exit, Plan, Remote, Run
from dstack.run.observation import (
    Absent,
    Exited,
    Observation,
    Preparing,
    Running,
    Unknown,
)
from dstack.store.memory import MemoryRuns
from dstack.store.runs import Stored
from dstack.supervise.sites import Site, Sites
from dstack.supervise.step import Supervisor

from .builders import run

HOME = Home(Path("/nowhere"))


class CrashError(Exception):
    """A supervisor was killed with SIGKILL."""


class World:
    """What goes on outside every supervisor: jobs, a clock, who is killed when."""

    def __init__(self, crashes: list[bool], *, far: bool = False) -> None:
        self.now = 1000.0
        self.far = far  # the jobs are on another machine, whose clock is a day ahead
        self.crashes = crashes
        self.jobs: dict[Path, str | Exit] = {}
        self.starts: dict[Path, int] = {}
        self.reachable = True
        self.orders: set[Path] = set()

    def point(self) -> None:
        """Between two things a supervisor does: it may be killed here."""
        if self.crashes and self.crashes.pop():
            raise CrashError

    def running(self) -> list[Path]:
        return [path for path, state in self.jobs.items() if isinstance(state, str)]

    def claim(self) -> None:
        """Keepers that are under way begin: claim their folder, then obey an order to stop."""
        for path in self.running():
            if self.jobs[path] == "launching":
                self.starts[path] = self.starts.get(path, 0) + 1
                stopped = path in self.orders
                self.jobs[path] = Exit(code=143, reason="stopped") if stopped else "preparing"

    def begin(self) -> None:
        """Commands begin."""
        for path in self.running():
            if self.jobs[path] == "preparing":
                self.jobs[path] = "running"

    def end(self, exit_: Exit) -> None:
        """One job ends by itself."""
        for path in self.running():
            if self.jobs[path] != "launching":
                at = self.now + 86_400 if self.far else None
                self.jobs[path] = msgspec.structs.replace(exit_, at=at)
                return


class FakeEngine:
    """An engine whose jobs are entries of a dictionary; every effect can be cut short."""

    name = "fake"

    def __init__(self, world: World) -> None:
        self.world = world

    def facts(self, *, pythons: bool = False, limits: bool = False) -> Facts:
        del pythons, limits
        return Facts(cpus=1, memory=1, disk=1)

    def plan(self, run: Run, run_folder: Path, attempt: int) -> Job:
        directory = str(run_folder / str(attempt))
        return Job(name=f"{run.id}-{attempt}", directory=directory, script="")

    def start(self, job: Job, values: Mapping[str, str], *, fresh: bool = False) -> int | None:
        del values
        self.world.point()
        path = Path(job.directory)
        # The keeper is under way; it has not claimed the folder yet. A second one will not.
        self.world.jobs.setdefault(path, "launching")
        self.world.point()
        return None

    def poll(self, directories: Sequence[Path]) -> Mapping[Path, Observation]:
        return {path: self._see(path) for path in directories}

    def _see(self, path: Path) -> Observation:
        if not self.world.reachable:
            return Unknown("no answer")
        state = self.world.jobs.get(path)
        if state in (None, "launching"):
            return Absent(folder=state is not None)
        if isinstance(state, Exit):
            return Exited(state)
        return Preparing("setup") if state == "preparing" else Running()

    def stop(self, directory: Path, *, kill: bool, reason: str = "stopped") -> None:
        del kill
        self.world.point()
        if self.world.jobs.get(directory) in ("preparing", "running") and self.world.reachable:
            code = 124 if reason == "max_duration" else 143
            self.world.jobs[directory] = Exit(code=code, reason=cast(Any, reason))
        # The order lies in the folder, for a keeper that is still on its way.
        self.world.orders.add(directory)
        self.world.point()

    def remove(self, directory: Path) -> None:
        self.world.jobs.pop(directory, None)


class FakeLeases:
    """A lock that its holder's death releases."""

    def __init__(self, table: dict[int, int], me: int) -> None:
        self.table = table
        self.me = me

    def take(self, seq: int) -> bool:
        return self.table.setdefault(seq, self.me) == self.me

    def drop(self, seq: int) -> None:
        if self.table.get(seq) == self.me:
            del self.table[seq]

    def die(self) -> None:
        for seq in [seq for seq, holder in self.table.items() if holder == self.me]:
            del self.table[seq]


class CrashingRuns(MemoryRuns):
    """A store whose user may be killed just before or just after a save."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def record(self, run: Run, event: Any) -> Run:
        self.world.point()
        after = super().record(run, event)
        self.world.point()
        return after


class Nothing:
    """Stands where snapshots and secrets would be."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class FakeSite:
    """Stands where a host and dstack's folder on it would be."""

    home = HOME
    far = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def engine(self, _: str) -> Engine:
        return self._engine

    def at_once(self) -> AbstractContextManager[None]:
        return nullcontext()

    def lay_code(self, *_: object, fresh: bool) -> None:
        pass

    def forget(self, _: Run) -> None:
        pass

    def away(self) -> None:
        pass

    def told(self, _: str | None) -> None:
        pass

    def host(self) -> FakeHost:
        return FakeHost()


class FakeHost:
    """Another machine, of which only the clock is asked."""

    def query(self, *_: object, timeout: float) -> bytes:
        return b"%d\n" % (time.time() + 86_400)


class FakeSites:
    """One site for all plans."""

    def __init__(self, engine: Engine) -> None:
        self._site = cast(Site, FakeSite(engine))

    def of(self, _: Plan) -> Site:
        return self._site


class Actor:
    """One process that supervises, until it is killed; the next one takes its place."""

    def __init__(self, world: World, runs: CrashingRuns, table: dict[int, int], me: int) -> None:
        self.leases = FakeLeases(table, me)
        self.world = world
        self.runs = runs
        self.fresh()

    def fresh(self) -> None:
        self.leases.die()
        engine = cast(Engine, FakeEngine(self.world))
        self.supervisor = Supervisor(
            HOME,
            cast(Any, self.runs),
            cast(Any, self.leases),
            cast(Any, Nothing()),
            cast(Sites, FakeSites(engine)),
            lambda: self.world.now,
        )
        self.supervisor.snapshots = cast(Any, Nothing())

    def step(self) -> None:
        for stored in self.runs.active():
            if self.leases.take(stored.seq):
                current = self.runs.get(stored.run.id)
                assert current is not None
                self.supervisor.step(current)

    def look(self) -> None:
        for stored in self.runs.all():
            self.supervisor.look(stored)

    def stop(self, *, kill: bool) -> None:
        for stored in self.runs.active():
            self.supervisor.request_stop(stored, kill=kill)

    def restart(self) -> None:
        for stored in self.runs.all():
            if not stored.run.active and self.leases.take(stored.seq):
                self.runs.record(stored.run, Restarted(self.world.now))


EXITS = (
    Exit(code=0, reason="completed"),
    Exit(code=1, reason="command_failed"),
    Exit(code=137, reason="killed", signal=9),
    Exit(code=124, reason="max_duration"),
)


def act(world: World, actor: Actor, name: str) -> None:
    """One thing that happens."""
    if name in ("claim", "begin"):
        getattr(world, name)()
    elif name.startswith("end"):
        world.end(EXITS[int(name[-1])])
    elif name == "cut":
        world.reachable = False
    elif name == "mend":
        world.reachable = True
    elif name == "time":
        world.now += 7
    elif name == "clock back":
        world.now -= 500
    elif name == "kill":
        actor.fresh()
    elif name in ("stop", "abort"):
        actor.stop(kill=name == "abort")
    else:
        getattr(actor, name)()


ACTS = [
    *("step", "step", "step", "look", "claim", "begin", "end 0", "end 1", "end 2", "end 3"),
    *("cut", "mend", "time", "clock back", "kill", "stop", "abort", "restart"),
]


# It ended before who started it could record that, and somebody stops it.
@example(
    acts=[("step", 0), ("step", 0), ("claim", 0), ("end 0", 0), ("stop", 0)],
    crashes=[True, False, True],
    retry=None,
    far=True,
)
@settings(max_examples=100, deadline=None)
@given(
    acts=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 1)), max_size=40),
    crashes=st.lists(st.booleans(), max_size=60),
    retry=st.sampled_from(
        [None, Retry(("error", "interruption"), 60), Retry(("no-capacity",), 60)]
    ),
    far=st.booleans(),
)
def test_nothing_bad_ever_happens(
    acts: list[tuple[str, int]], crashes: list[bool], retry: Retry | None, *, far: bool
) -> None:
    world = World(crashes, far=far)
    runs = CrashingRuns(world)
    table: dict[int, int] = {}
    actors = [Actor(world, runs, table, me) for me in (0, 1)]
    mine = run(retry)
    if far:
        plan = msgspec.structs.replace(mine.plan, remote=Remote("me@far", "/home/me/.dstack"))
        mine = msgspec.structs.replace(mine, plan=plan)
    runs.add(mine, lambda _: None)
    for name, who in acts:
        before = [stored.run for stored in runs.all()]
        try:
            act(world, actors[who], name)
        except CrashError:
            actors[who].fresh()
        check_always(world, runs, before)
    # From here on nobody is killed: the run must reach its end, whatever happened before.
    world.crashes = []
    world.reachable = True
    for _ in range(60):
        actors[0].fresh()
        actors[1].fresh()
        actors[0].step()
        world.claim()
        world.end(EXITS[0])
        world.now += 61
        if not runs.active():
            break
    check_always(world, runs, [])
    check_end(world, runs.all()[0])


def check_always(world: World, runs: CrashingRuns, before: list[Run]) -> None:
    """What holds at every moment."""
    assert all(count == 1 for count in world.starts.values()), "started twice"
    busy = [path for path in world.running() if world.jobs[path] != "launching"]
    assert len(busy) <= 1, "two attempts at once"
    for stored in runs.all():
        assert (stored.run.finished_at is not None) == (not stored.run.active)
        for old in before:
            assert stored.run.version >= old.version
            if not old.active and stored.run.version == old.version:
                assert stored.run == old


def check_end(world: World, stored: Stored) -> None:
    """What holds when all is over."""
    ended = stored.run
    assert not ended.active, f"never ended: {ended.status}"
    world.claim()
    assert not world.running(), "a job is left"
    recorded = {attempt.number: attempt.exit for attempt in ended.attempts}
    for path, state in world.jobs.items():
        assert isinstance(state, Exit)
        known = recorded.get(int(path.name))
        assert known is not None, "an attempt was lost"
        assert untimed(known) == untimed(state), "how an attempt ended was lost"
    if ended.status == "done":
        last = ended.attempts[-1].exit
        assert last is not None
        assert last.reason == "completed"


def untimed(exit_: Exit) -> Exit:
    """Another machine's time of it does not count."""
    return msgspec.structs.replace(exit_, at=None)
