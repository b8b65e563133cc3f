"""How long the background supervisor stays, by a clock that only its own waiting moves."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dstack.run.model import Run
from dstack.run.next import Action
from dstack.store.runs import Stored
from dstack.supervise import background
from dstack.supervise.background import Background
from dstack.supervise.step import Supervisor
from tests.unit.run.builders import run, run_in

LINGER = 1.0  # seconds, as the guide says


class World:
    """A database with runs that end when their time has come, and whoever looks after them."""

    def __init__(self, *ends: float, by_another: bool = False) -> None:
        self.now = 0.0
        self.ends = dict(enumerate(ends, 1))  # of each run, by its number in the database
        self.begins: dict[int, float] = {}
        self.by_another = by_another  # another process holds the runs, and records their ends
        self.looked: list[int] = []
        self.faulty: set[int] = set()  # runs that a fault of ours keeps us from looking after
        self.rounds = 0
        # What the loop sees of a supervisor.
        self.runs = self.leases = self
        self.database = SimpleNamespace(changes=self.changed)
        self.clock = lambda: self.now

    # ---- the database ----

    def changed(self) -> int:
        """A number that is another one after others have written."""
        self.rounds += 1
        assert self.rounds < 1000, "it never ends"
        times = [*self.begins.values(), *(self.ends.values() if self.by_another else ())]
        return sum(time <= self.now for time in times)

    def is_active(self, seq: int) -> bool:
        return self.begins.get(seq, 0.0) <= self.now < self.ends[seq]

    def active(self) -> list[Stored]:
        return [Stored(seq, run()) for seq in self.ends if self.is_active(seq)]

    # ---- leases ----

    def take(self, seq: int) -> bool:
        return not self.by_another

    def drop(self, seq: int) -> None:
        pass

    # ---- steps ----

    def glance(self, found: Iterable[Stored]) -> None:
        list(found)

    def step(self, stored: Stored) -> Action:
        self.looked.append(stored.seq)
        if stored.seq in self.faulty:
            raise IndexError
        if not self.is_active(stored.seq):
            stored.run = run_in("done")
        return None

    def pid(self, run: Run) -> int | None:
        return None


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the loop look after a world: when it ended."""

    def until_the_end(world: World) -> float:
        class Poll:
            def poll(self, milliseconds: int) -> list[tuple[int, int]]:
                world.now += milliseconds / 1000
                return []

        monkeypatch.setattr(background, "time", SimpleNamespace(monotonic=lambda: world.now))
        loop = Background(cast(Supervisor, world))
        loop.poll = cast(Any, Poll())
        loop.serve()
        return world.now

    return until_the_end


def test_it_ends_a_second_after_the_last_run(serve: Any) -> None:
    # An end is seen within half a second where the kernel does not tell of it.
    assert LINGER <= serve(World(3.0, 7.2)) - 7.2 <= LINGER + 0.6


def test_it_ends_soon_after_a_run_that_another_process_saw_to(serve: Any) -> None:
    # The database is looked at every two seconds.
    assert LINGER <= serve(World(7.2, by_another=True)) - 7.2 <= LINGER + 2.1


def test_with_nothing_to_do_it_stays_for_a_second(serve: Any) -> None:
    assert LINGER <= serve(World()) <= LINGER + 0.1


def test_a_run_that_comes_in_that_second_is_looked_after(serve: Any) -> None:
    world = World(3.0, 20.0)
    world.begins[2] = 3.7
    assert LINGER <= serve(world) - 20.0 <= LINGER + 0.6
    assert world.looked.count(2) > 1


def test_a_fault_in_one_run_leaves_the_others_in_care(
    serve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(100.0, 7.2)
    world.faulty = {1}
    assert LINGER <= serve(world) - 100.0 <= LINGER + 21
    assert world.looked.count(1) == 2
    assert world.looked.count(2) > 2
    assert capsys.readouterr().err.count("Traceback") == 2
