"""What is promised of a store of runs, of the one on disk and of the one in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dstack.errors import StoreError, UsageError
from dstack.paths import Home
from dstack.run.events import Began, Ended, Restarted, Started
from dstack.run.model import Run
from dstack.run.states import IllegalEvent
from dstack.store.database import Database
from dstack.store.memory import MemoryRuns
from dstack.store.runs import Conflict, NameTaken, Runs
from tests.unit.run.builders import DONE, run

Store = Runs | MemoryRuns


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryRuns()
        return
    database = Database(Home(tmp_path))
    yield Runs(database)
    database.close()


def named(name: str, run_id: str) -> Run:
    return msgspec.structs.replace(run(), name=name, id=run_id)


def add(store: Store, name: str, run_id: str) -> Run:
    return store.add(named(name, run_id), lambda _: None).run


def finish(store: Store, found: Run, at: float = 1002.0) -> Run:
    begun = store.record(found, Started(1001, len(found.attempts) + 1))
    return store.record(begun, Ended(at, DONE))


def test_a_run_comes_back_as_it_was(store: Store) -> None:
    kept = add(store, "one", "a1")
    found = store.find("one")
    assert found.run == kept
    assert store.get("a1") is not None
    assert store.find("a1").seq == found.seq


def test_the_lease_is_taken_before_anybody_sees_the_run(store: Store) -> None:
    seen: list[object] = []
    stored = store.add(named("one", "a1"), lambda seq: seen.append((seq, len(store.all()))))
    if isinstance(store, MemoryRuns):
        assert seen == [(stored.seq, 0)]
    else:
        # Inside the transaction we see it ourselves; nobody else does.
        assert seen == [(stored.seq, 1)]


def test_the_name_of_an_active_run_is_taken(store: Store) -> None:
    first = add(store, "one", "a1")
    with pytest.raises(NameTaken, match="one is active"):
        add(store, "one", "a2")
    finish(store, first)
    second = add(store, "one", "a2")
    assert store.find("one").run == second


def test_a_name_that_was_made_up_is_nobody_elses_not_even_of_a_finished_run(store: Store) -> None:
    finish(store, add(store, "one", "a1"))
    with pytest.raises(NameTaken):
        store.add(named("one", "a2"), lambda _: None, unheard=True)
    assert len(store.all()) == 1


def test_a_restart_needs_its_name_back(store: Store) -> None:
    ended = finish(store, add(store, "one", "a1"))
    add(store, "one", "a2")
    with pytest.raises(NameTaken):
        store.record(ended, Restarted(1010))
    assert store.get("a1") is not None
    assert store.find("a1").run == ended


def test_a_save_from_an_old_version_changes_nothing(store: Store) -> None:
    old = add(store, "one", "a1")
    new = store.record(old, Started(1001, 1))
    with pytest.raises(Conflict):
        store.record(old, Started(1001, 1))
    assert store.find("one").run == new


def test_an_illegal_event_changes_nothing(store: Store) -> None:
    kept = add(store, "one", "a1")
    with pytest.raises(IllegalEvent):
        store.record(kept, Began(1001))
    assert store.find("one").run == kept


def test_lists(store: Store) -> None:
    done = finish(store, add(store, "one", "a1"), at=1005)
    later = finish(store, add(store, "other", "a2"), at=1009)
    active = add(store, "third", "a3")
    assert [stored.run for stored in store.all()] == [done, later, active]
    assert [stored.run for stored in store.active()] == [active]
    assert store.count_active() == 1
    latest = store.latest_finished()
    assert latest is not None
    assert latest.run == later
    assert store.names("o") == ["one", "other"]


def test_only_finished_runs_are_forgotten(store: Store) -> None:
    kept = add(store, "one", "a1")
    store.forget(kept)
    assert store.get("a1") is not None
    store.forget(finish(store, kept))
    assert store.get("a1") is None
    with pytest.raises(UsageError, match="no run called one"):
        store.find("one")


def test_every_event_is_in_the_history(tmp_path: Path) -> None:
    database = Database(Home(tmp_path))
    store = Runs(database)
    finish(store, add(store, "one", "a1"))
    rows = database.rows("history", id="a1")
    assert [(row[0], "ended" in str(row[2])) for row in rows] == [(1, False), (2, True)]
    database.close()


def test_a_database_of_a_newer_dstack_is_left_alone(tmp_path: Path) -> None:
    Database(Home(tmp_path)).close()
    connection = sqlite3.connect(tmp_path / "dstack.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer dstack"):
        Database(Home(tmp_path))
