"""The figures of `bench/snapshot.py` that have goals, for the table of `bench/run.py`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from itertools import count

from bench.harness import Context, Row
from bench.snapshot import git, make, versus
from dstack.paths import Home
from dstack.snapshot import Snapshots

FILES, SIZE = 10_000, 20_000


def measure(context: Context) -> Iterable[Row]:
    """10,000 files, 200 MB: unchanged against `git status`, first time against `git add -A`."""
    root = context.folder("trees")
    project = root / "project"
    make(project, FILES, SIZE)
    number = count()

    def first() -> None:
        Snapshots(Home(root / f"home{next(number)}")).begin(project).finish()

    def add() -> None:
        fresh = root / f"fresh{next(number)}"
        fresh.mkdir()
        git(fresh, "init", "-q", "--bare", ".")
        git(project, "add", "-A", GIT_DIR=str(fresh), GIT_WORK_TREE=str(project))

    ours, theirs = versus(first, add, 3)
    yield Row("snapshot, first time", ours * 1000, theirs * 1000, "ms", 1.5, note="git add -A")
    for left in (*root.glob("home*"), *root.glob("fresh*")):
        shutil.rmtree(left)

    snapshots = Snapshots(Home(root / "home"))
    snapshots.begin(project).finish()
    ours, theirs = versus(
        lambda: snapshots.begin(project).finish(), lambda: git(project, "status"), 11
    )
    yield Row("snapshot, unchanged", ours * 1000, theirs * 1000, "ms", 2, note="git status")
