"""A build appears whole or not at all, wherever whoever keeps it is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.engines.process import ProcessEngine
from dstack.paths import Home
from dstack.run.model import Attempt, Exit, Run
from dstack.snapshot import Snapshots
from dstack.store.builds import Builds
from dstack.supervise.keep import keep_build
from dstack.supervise.sites import Site
from tests.contract.engine.conftest import Bench, finish
from tests.support import write_files

FILES = {"in": "in\n", "changed": "before\n", "gone": "1\n", "sub/other": "1\n"}
COMMANDS = (
    "cat in; echo after >>changed; rm gone",
    "mkdir -p new/deep; echo 1 >new/deep/file; echo 2 >sub/file; mkdir empty",
)
LEFT = {"changed": "before\nafter\n", "new/deep/file": "1\n", "sub/file": "2\n"}


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


class Stage:
    """A build stage that has just ended well, and is still to be kept."""

    def __init__(self, bench: Bench, project: Path) -> None:
        home = bench.home
        self.home, self.site, self.snapshots = home, Site(home), Snapshots(home)
        pending = self.snapshots.begin(project)
        tree = pending.finish().tree
        # Its processes are told by the id, also from those of the same test elsewhere.
        run = bench.run(*COMMANDS, stage="build", run_id=os.urandom(6).hex())
        folder = home.run(run.id)
        (folder / "code").rmdir()
        self.snapshots.checkout(tree, folder / "code")
        pending.cancel()
        write_files(folder / "env" / "bin", {"python": "#!", "tool": "x"})
        job = bench.engine.plan(run, folder, 1)
        bench.engine.start(job, {})
        self.end = bench.ended(Path(job.directory))
        assert self.end.code == 0
        fields = {name: getattr(run, name) for name in run.__struct_fields__}
        fields |= {"tree": tree, "attempts": (Attempt(1, started_at=1.0),), "started_at": 1.0}
        self.run = Run(**fields)

    def keep(self) -> Exit:
        return keep_build(self.home, self.snapshots, self.site, self.run, self.end)


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    found: list[Bench] = []
    yield found
    for bench in found:
        finish(bench)


def stage(benches: list[Bench], tmp_path: Path) -> Stage:
    count = len(benches)
    benches.append(Bench(ProcessEngine(Home(tmp_path / f"home{count}"), grace=3)))
    return Stage(benches[-1], write_files(tmp_path / "project", FILES))


def check(kept: Stage) -> None:
    builds = Builds(kept.home)
    (build,) = builds.all()
    folder = kept.home.build(build.id)
    files = folder / "files"
    found = {str(p.relative_to(files)): p.read_text() for p in files.rglob("*") if p.is_file()}
    assert found == LEFT
    assert (files / "empty").is_dir()
    assert (folder / "env/bin/tool").read_text() == "x"
    assert set((folder / "gone").read_bytes().split(b"\0")[:-1]) == {b"./changed", b"./gone"}
    inputs = builds.inputs(build.id)
    assert inputs is not None
    assert inputs.files.keys() == {b"in", b"changed", b"gone"}
    assert sorted(os.listdir(kept.home.builds)) == [build.id]
    assert not (kept.home.run(build.id) / "code").exists()
    assert (kept.home.run(build.id) / "1/log").exists()


def test_it_is_kept_and_keeping_it_twice_does_no_harm(benches: list[Bench], tmp_path: Path) -> None:
    done = stage(benches, tmp_path)
    for _ in range(2):
        assert done.keep() == done.end
        check(done)


def test_a_kill_at_any_step_leaves_nothing_half_made_and_the_step_is_done_again(
    benches: list[Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at, survived = 0, False
    while not survived:
        kept = stage(benches, tmp_path)
        left = [killed_at]

        def counted(real: Any, left: list[int] = left) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return real(*args, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("rename", "mkdir", "unlink"):
                patch.setattr(os, name, counted(getattr(os, name)))
            try:
                kept.keep()
                survived = True
            except Killed:
                pass
        for build in Builds(kept.home).all():
            assert (kept.home.build(build.id) / "inputs").exists()
        assert kept.keep() == kept.end
        check(kept)
        killed_at += 1
    assert killed_at > 8  # steps that were cut off, each once


def test_what_cannot_be_kept_is_a_build_that_failed(benches: list[Bench], tmp_path: Path) -> None:
    done = stage(benches, tmp_path)
    # As with a disk that is full: the folder of builds cannot be made.
    done.home.builds.write_text("in the way")
    end = done.keep()
    assert (end.reason, end.code) == ("start_failed", 125)
    assert end.detail is not None
    assert "what the build left cannot be kept" in end.detail
    done.home.builds.unlink()
    assert Builds(done.home).all() == []
