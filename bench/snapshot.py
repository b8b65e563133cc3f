"""Snapshots side by side with git on the same folder: `python bench/snapshot.py [--small]`.

Prints milliseconds and ratios; the goals stand beside them. Every figure is the median of several
rounds in which both sides take turns.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from dstack.paths import Home
from dstack.snapshot import Snapshots


def make(folder: Path, files: int, size: int) -> None:
    """A repository whose files are a third noise and two thirds text, `size` bytes each."""
    source = random.Random(1)
    words = [source.randbytes(3).hex().encode() + b" " for _ in range(2000)]
    for number in range(files):
        path = folder / f"d{number % 50}" / f"e{number // 50 % 8}" / f"f{number}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = source.randbytes(size // 3)
        path.write_bytes(noise + b"".join(source.choices(words, k=(size - len(noise)) // 7)))
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "-qm", "x")


def git(folder: Path, *arguments: str, **variables: str) -> None:
    """A git command as a user would type it."""
    environ = {**os.environ, **variables}
    subprocess.run(["git", *arguments], cwd=folder, env=environ, check=True, capture_output=True)


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def versus(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> list[float]:
    """The medians of both, in seconds."""
    pairs = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    return [statistics.median(side) for side in zip(*pairs, strict=True)]


def line(what: str, ours: float, theirs: float, against: str, goal: str) -> None:
    """One line of the table."""
    ratio = ours / theirs
    print(f"{what:34} {ours * 1e3:9.1f} ms {theirs * 1e3:9.1f} ms {ratio:6.2f}  {goal}  {against}")


def measure(root: Path, files: int, size: int, rounds: int) -> None:
    """One table."""
    project = root / "project"
    make(project, files, size)
    print(f"\n{files} files, {files * size / 1e6:.0f} MB")
    print(f"{'':34} {'dstack':>12} {'git':>12} {'ratio':>6}  goal   against")
    count = iter(range(1_000_000))

    def first() -> None:
        home = Home(root / f"home{next(count)}")
        Snapshots(home).begin(project).finish()

    def add() -> None:
        fresh = root / f"fresh{next(count)}"
        fresh.mkdir()
        git(fresh, "init", "-q", "--bare", ".")
        git(project, "add", "-A", GIT_DIR=str(fresh), GIT_WORK_TREE=str(project))

    first_time, added = versus(first, add, 3)
    line("first snapshot", first_time, added, "git add -A, fresh index", "<=1.5")
    for left in (*root.glob("home*"), *root.glob("fresh*")):
        shutil.rmtree(left)

    snapshots = Snapshots(Home(root / "home"))
    tree = snapshots.begin(project).finish().tree
    ours, status = versus(
        lambda: snapshots.begin(project).finish(), lambda: git(project, "status"), rounds
    )
    line("unchanged", ours, status, "git status", "<=2.0")

    def change() -> None:
        (project / "d0/e0/f0.dat").write_text(str(next(count)))
        snapshots.begin(project).finish()

    ours, status = versus(change, lambda: git(project, "status"), rounds)
    line("one file changed", ours, status, "git status", "     ")

    def archive() -> None:
        target = root / f"archive{next(count)}"
        git(project, "worktree", "add", "--detach", str(target))

    ours, theirs = versus(
        lambda: snapshots.checkout(tree, root / f"out{next(count)}"), archive, min(rounds, 3)
    )
    line("checkout", ours, theirs, "git worktree add", "     ")
    snapshots.prepare_spare(project, tree)
    if (root / "home/code/spares" / tree).exists():
        spare = timed(lambda: snapshots.checkout(tree, root / "spare"))
        line("checkout, from the spare", spare, theirs, "git worktree add", "     ")


def main() -> None:
    """Both sizes of the goals, or the small one alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="1,000 files only")
    arguments = parser.parse_args()
    sizes = [(1_000, 4_000, 15)] + ([] if arguments.small else [(10_000, 20_000, 11)])
    for files, size, rounds in sizes:
        with tempfile.TemporaryDirectory() as made:
            measure(Path(made), files, size, rounds)


if __name__ == "__main__":
    main()
