"""What may happen meanwhile: other commands, kills, a full disk, damage, a file that changes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack.errors import DstackError, StoreError
from dstack.paths import Home
from dstack.snapshot import Snapshots
from tests.contract.snapshot.lab import Lab, contents

TAKE = """
import sys
from pathlib import Path
from dstack.paths import Home
from dstack.snapshot import Snapshots
snapshots = Snapshots(Home(Path(sys.argv[1])))
snapshot = snapshots.begin(Path(sys.argv[2])).finish()
for target in sys.argv[3:]:
    snapshots.checkout(snapshot.tree, Path(target))
print(snapshot.tree)
"""


def another(lab: Lab, *targets: Path) -> subprocess.Popen[str]:
    """Another process that takes a snapshot; the leader of a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", TAKE, lab.home.root, lab.project, *targets],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
    )


def fill(lab: Lab, count: int, seed: int = 1) -> None:
    source = random.Random(seed)
    for number in range(count):
        lab.write(f"d{number % 7}/f{number}", source.randbytes(source.randrange(3000)))


def test_many_at_once_agree(lab: Lab) -> None:
    fill(lab, 300)
    processes = [another(lab) for _ in range(6)]
    answers = [process.communicate(timeout=120) for process in processes]
    trees = {out.strip() for out, _ in answers}
    assert trees == {lab.take().tree}, answers
    assert lab.seen() == contents(lab.project)


def test_snapshots_while_the_folder_changes_all_end_well(lab: Lab) -> None:
    fill(lab, 50)
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            lab.write("d1/growing", b"x" * (number % 9000))
            lab.write(f"d2/comes{number % 5}", str(number))
            (lab.project / f"d2/comes{(number + 2) % 5}").unlink(missing_ok=True)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(10):
            assert lab.take().files >= 50
    finally:
        stop.set()
        thread.join()
    assert lab.seen() == contents(lab.project)


@pytest.mark.parametrize("whole_group", [True, False], ids=["group", "python alone"])
def test_killed_at_any_moment_the_next_one_is_right(lab: Lab, whole_group: bool) -> None:
    source = random.Random(7)
    for round_ in range(6):
        fill(lab, 260, seed=round_)
        target = lab.project.parent / f"t{round_}"
        process = another(lab, target)
        time.sleep(source.uniform(0.05, 0.35))  # the moment of the kill, nothing waits for it
        kill: Callable[[int, int], None] = os.killpg if whole_group else os.kill
        kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        if target.exists():
            assert contents(target) == contents(lab.project)
        assert lab.seen() == contents(lab.project)


def test_a_lock_file_that_a_killed_git_left_is_no_obstacle(lab: Lab) -> None:
    lab.write("a", "1")
    lab.take()
    (index,) = [path for path in (lab.home.code / "projects").iterdir() if not path.suffix]
    index.with_name(f"{index.name}.lock").write_bytes(b"half")
    lab.write("a", "22")
    assert lab.seen() == {b"a": ("file", b"22")}


@pytest.mark.parametrize("damage", [b"", b"garbage", b"DIRC\0\0\0\2\xff\xff\xff\xff" + b"x" * 99])
def test_a_damaged_index_is_made_anew(lab: Lab, damage: bytes) -> None:
    lab.write("a", "1")
    lab.take()
    for path in (lab.home.code / "projects").iterdir():
        path.write_bytes(damage)
    assert lab.seen() == {b"a": ("file", b"1")}


def test_lost_objects_are_sent_again_with_the_next_change(lab: Lab) -> None:
    fill(lab, 20)
    lab.take()
    for path in (lab.home.code / "store.git" / "objects").glob("??/*"):
        path.unlink()
    lab.write("new", "1")
    assert lab.seen() == contents(lab.project)


def test_a_tree_that_is_not_there_is_an_error_and_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    lab.take()
    target = tmp_path / "out" / "code"
    with pytest.raises(StoreError, match="cannot check out"):
        lab.snapshots.checkout("1" * 40, target)
    assert list(target.parent.iterdir()) == []


def test_checkout_twice_does_nothing_the_second_time(lab: Lab) -> None:
    lab.write("a", "1")
    tree = lab.take().tree
    target = lab.give(tree)
    (target / "a").write_text("the run's own")
    lab.snapshots.checkout(tree, target)
    assert (target / "a").read_text() == "the run's own"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_what_a_killed_checkout_left_goes_with_the_next(lab: Lab) -> None:
    lab.write("a", "1")
    tree = lab.take().tree
    target = lab.project.parent / "run" / "code"
    left = target.with_name("code.tmp-999999")
    left.mkdir(parents=True)
    (left / "half").write_text("1")
    lab.snapshots.checkout(tree, target)
    assert [path.name for path in target.parent.iterdir()] == ["code"]


def test_cancel_leaves_nothing_running(lab: Lab) -> None:
    fill(lab, 100)
    pending = lab.snapshots.begin(lab.project)
    pending.cancel()
    assert lab.take().files == 100


def test_a_full_disk_is_an_error_and_the_next_one_works(lab: Lab, tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    snapshots = Snapshots(Home(mount / "home"))
    try:
        (mount / "home").mkdir()
        lab.write("large", os.urandom(4_000_000))
        with pytest.raises(StoreError, match="No space left on device") as caught:
            snapshots.begin(lab.project).finish()
        assert caught.value.hint
        lab.write("large", b"small now")
        for number in range(300):
            lab.write(f"many/{number}", os.urandom(10_000))
        with pytest.raises(StoreError, match="No space left on device"):
            snapshots.begin(lab.project).finish()
        for number in range(300):
            (lab.project / f"many/{number}").unlink()
        snapshot = snapshots.begin(lab.project).finish()
        snapshots.checkout(snapshot.tree, tmp_path / "out")
        assert contents(tmp_path / "out") == contents(lab.project)
        lab.write("more", os.urandom(800_000))
        filler = mount / "filler"
        tree = snapshots.begin(lab.project).finish().tree
        with pytest.raises(OSError, match="No space"), filler.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(StoreError, match="No space left on device"):
            snapshots.checkout(tree, mount / "code")
        assert sorted(os.listdir(mount)) == ["filler", "home"]
        assert not (mount / "code").exists()
        filler.unlink()
        snapshots.checkout(tree, mount / "code")
        assert contents(mount / "code") == contents(lab.project)
    finally:
        snapshots.close()
        subprocess.run(["umount", str(mount)], check=True)


def test_without_git_on_the_path(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write("a", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DstackError, match="git is not installed"):
        lab.take()
