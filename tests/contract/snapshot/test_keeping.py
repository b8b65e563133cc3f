"""Spare checkouts, what is kept for runs, and what `prune` frees."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from dstack.errors import StoreBusy, StoreError
from dstack.snapshot import Snapshots, spare, store
from tests.contract.snapshot.lab import Lab, contents


def spares(lab: Lab) -> list[Path]:
    return [path for path in (lab.home.code / "spares").iterdir() if path.is_dir()]


def test_a_spare_is_taken_once(lab: Lab) -> None:
    lab.write("a/b", "1", mode=0o755)
    tree = lab.take().tree
    lab.snapshots.prepare_spare(lab.project, tree)
    (made,) = spares(lab)
    inode = made.stat().st_ino
    first = lab.give(tree)
    assert first.stat().st_ino == inode
    assert spares(lab) == []
    assert contents(first) == contents(lab.give(tree)) == contents(lab.project)


def test_a_spare_follows_the_project(lab: Lab) -> None:
    for name in ("same", "changed", "deleted", "d/x"):
        lab.write(name, "1")
    lab.snapshots.prepare_spare(lab.project, lab.take().tree)
    (made,) = spares(lab)
    inode = (made / "same").stat().st_ino
    lab.write("changed", "2")
    (lab.project / "deleted").unlink()
    (lab.project / "d/x").unlink()
    (lab.project / "d").rmdir()
    lab.write("d", "a file now")
    tree = lab.take().tree
    lab.snapshots.prepare_spare(lab.project, tree)
    assert [path.name for path in spares(lab)] == [tree]
    given = lab.give(tree)
    assert (given / "same").stat().st_ino == inode
    assert contents(given) == contents(lab.project)


def test_a_spare_has_the_empty_folders_of_its_tree_and_no_others(lab: Lab) -> None:
    lab.write("a", "1")
    (lab.project / "first").mkdir()
    lab.snapshots.prepare_spare(lab.project, lab.take().tree)
    (lab.project / "first").rename(lab.project / "second")
    lab.snapshots.prepare_spare(lab.project, lab.take().tree)
    assert lab.seen() == contents(lab.project)
    assert spares(lab) == []


def test_a_spare_is_wanted_where_there_is_none_and_nobody_makes_it(lab: Lab) -> None:
    lab.write("a", "1")
    tree = lab.take().tree
    assert lab.snapshots.wants_spare(tree)
    with (lab.home.code / "spares" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not lab.snapshots.wants_spare(tree)
    lab.snapshots.prepare_spare(lab.project, tree)
    assert not lab.snapshots.wants_spare(tree)
    lab.give(tree)
    assert lab.snapshots.wants_spare(tree)


def test_a_spare_of_another_state_is_not_taken(lab: Lab) -> None:
    lab.write("a", "1")
    lab.snapshots.prepare_spare(lab.project, lab.take().tree)
    lab.write("a", "2")
    assert lab.seen() == {b"a": ("file", b"2")}
    assert len(spares(lab)) == 1


def test_a_half_made_spare_is_never_taken(lab: Lab) -> None:
    lab.write("a", "1")
    tree = lab.take().tree
    lab.snapshots.prepare_spare(lab.project, tree)
    (made,) = spares(lab)
    (key,) = [path.stem for path in made.parent.glob("*.tree")]
    (made / "a").unlink()
    made.rename(made.with_name(f"{key}.tmp"))  # as a kill in the middle leaves it
    made.with_name(f"{key}.index.lock").write_bytes(b"half")
    assert lab.seen() == {b"a": ("file", b"1")}
    lab.snapshots.prepare_spare(lab.project, tree)
    assert [path.name for path in spares(lab)] == [tree]
    assert lab.seen() == {b"a": ("file", b"1")}


def test_many_take_one_spare(lab: Lab) -> None:
    lab.write("a", "1")
    tree = lab.take().tree
    lab.snapshots.prepare_spare(lab.project, tree)
    targets = [lab.project.parent / "runs" / str(number) for number in range(6)]
    threads = [
        threading.Thread(target=Snapshots(lab.home).checkout, args=(tree, target))
        for target in targets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [contents(target) for target in targets] == [contents(lab.project)] * 6


def test_no_spare_of_what_is_large(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "_LARGEST", 99)
    lab.write("large", "x" * 100)
    lab.snapshots.prepare_spare(lab.project, lab.take().tree)
    assert spares(lab) == []


def test_prune_frees_everything_but_what_a_run_needs(lab: Lab) -> None:
    lab.write("a", os.urandom(300_000))
    kept = lab.take().tree
    lab.snapshots.keep("run1", kept)
    before = contents(lab.project)
    lab.write("a", os.urandom(500_000))
    lost = lab.take().tree
    lab.snapshots.prepare_spare(lab.project, lost)
    assert lab.snapshots.prune() > 900_000
    assert contents(lab.give(kept)) == before
    with pytest.raises(StoreError):
        lab.give(lost)
    assert lab.seen() == contents(lab.project)
    lab.snapshots.release("run1")
    lab.snapshots.release("run1")
    assert lab.snapshots.prune() > 700_000
    with pytest.raises(StoreError):
        lab.give(kept)
    assert lab.seen() == contents(lab.project)


def test_prune_of_one_project_leaves_the_others(lab: Lab, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "b").write_bytes(os.urandom(200_000))
    lab.write("a", os.urandom(100_000))
    lab.take()
    tree = lab.take(other).tree
    freed = lab.snapshots.prune(lab.project)
    assert 90_000 < freed < 200_000
    assert contents(lab.give(tree)) == contents(other)
    assert lab.take(other).sent == 0
    assert lab.take().sent == 100_000


def test_prune_of_what_was_not_used_lately(lab: Lab) -> None:
    lab.write("a", os.urandom(100_000))
    lab.take()
    assert lab.snapshots.prune(older_than=3600) == 0
    assert lab.take().sent == 0
    for path in (lab.home.code / "projects").glob("*.state"):
        os.utime(path, (1, 1))
    assert lab.snapshots.prune(older_than=3600) > 90_000
    assert lab.take().sent == 100_000


def test_prune_of_nothing(lab: Lab) -> None:
    assert lab.snapshots.prune() == 0


def test_prune_waits_for_a_snapshot_in_use(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write("a", "1")
    tree = lab.take().tree
    monkeypatch.setattr(store, "_PRUNE_WAIT", 0.1)
    other = Snapshots(lab.home)
    with pytest.raises(StoreBusy, match="in use by another"):
        other.prune()
    assert contents(lab.give(tree)) == contents(lab.project)
    lab.snapshots.close()
    assert other.prune() > 0


def test_prune_does_not_wait_for_a_run_that_was_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.write("a", "1")
    monkeypatch.setattr(store, "_PRUNE_WAIT", 0.1)
    pending = lab.snapshots.begin(lab.project)
    tree = pending.finish().tree
    other = Snapshots(lab.home)
    other.keep("run1", tree)
    pending.cancel()
    other.checkout(tree, lab.project.parent / "run" / "code")
    Snapshots(lab.home).prune()
    assert contents(lab.give(tree)) == contents(lab.project)
