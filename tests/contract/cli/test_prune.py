"""`dstack prune` on a real folder of dstack's."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from dstack.cli import prune
from dstack.cli.main import main
from dstack.cli.project import cache_key
from dstack.paths import Home
from dstack.run.model import Plan, Run
from dstack.snapshot import Snapshots
from dstack.store.database import Database
from dstack.store.runs import Runs


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("DSTACK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


def cached(home: Home, key: str, size: int = 100_000) -> Path:
    file = home.cache / key / "pip" / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(os.urandom(size))
    file.with_name("link").hardlink_to(file)
    return home.cache / key


def keep(home: Home, key: str, project: Path, status: str) -> None:
    plan = Plan(
        name="x",
        project=str(project),
        workdir=".",
        file=".dstack.yml",
        backend="local",
        engine="process",
        cache_key=key,
    )
    run = Run(id=key, name=f"run-{key}", plan=plan, status="submitted", submitted_at=0)
    database = Database(home)
    Runs(database).add(
        msgspec.convert({**msgspec.to_builtins(run), "status": status}, Run), lambda _: True
    )
    database.close()


def test_caches_are_deleted_and_the_size_is_told(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = cached(home, "one"), cached(home, "two")
    assert main(["prune", "cache"]) == 0
    assert not one.exists()
    assert not two.exists()
    err = capsys.readouterr().err
    freed = float(err.removeprefix("freed ").split(" ")[0])
    assert 200_000 / 1024 <= freed < 300  # a file with two links counts once
    assert list(home.cache.iterdir()) == []


def test_caches_of_active_runs_stay(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy, idle = cached(home, "busy"), cached(home, "idle")
    keep(home, "busy", tmp_path, "running")
    keep(home, "idle", tmp_path, "done")
    assert main(["prune", "cache"]) == 0
    assert busy.exists()
    assert not idle.exists()
    assert "kept the cache of 1 task file of active runs" in capsys.readouterr().err


def test_one_project_only(home: Home, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    (project / ".git").mkdir()
    (project / "sub" / "train.dstack.yml").write_text("type: task\ncommands: [true]\n")
    of_run, of_file = (
        cached(home, "ofrun"),
        cached(home, cache_key(project, "sub/train.dstack.yml")),
    )
    other = cached(home, "other")
    keep(home, "ofrun", project, "failed")
    keep(home, "other", tmp_path / "elsewhere", "done")
    assert main(["prune", "cache", str(project / "sub")]) == 0
    assert not of_run.exists()
    assert not of_file.exists()
    assert other.exists()


def test_what_a_killed_prune_left_is_deleted(home: Home) -> None:
    left = cached(home, f"{prune._ASIDE}1-key")
    assert main(["prune", "cache"]) == 0
    assert not left.exists()


def test_nothing_to_delete_is_no_error(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert not home.cache.exists()
    assert main(["prune", "cache"]) == 0
    assert main(["prune", "builds"]) == 0
    assert capsys.readouterr().err == "freed 0 B\nfreed 0 B\n"
    assert main(["prune", "cache", "nowhere"]) == 2


def test_code_that_no_run_needs_is_deleted(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "data").write_bytes(os.urandom(300_000))
    trees = []
    for run in ("needed", None):
        (project / "data").write_bytes(os.urandom(300_000))
        snapshots = Snapshots(home)
        trees.append(snapshots.begin(project).finish().tree)
        if run is not None:
            snapshots.keep(run, trees[-1])
        snapshots.close()
    assert main(["prune", "code", str(project)]) == 0
    freed = capsys.readouterr().err
    assert freed.startswith("freed ")
    assert 290 < float(freed.split(" ")[1]) < 600
    Snapshots(home).checkout(trees[0], tmp_path / "out")
    assert (tmp_path / "out" / "data").stat().st_size == 300_000
