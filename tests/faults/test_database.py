"""The database in use by others, damaged, or with times that cannot be."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Project
from tests.faults.conftest import clear
from tests.support import Dstack, wait_for

QUICK = "type: task\ncommands: [echo hi]\n"


@contextmanager
def locked(dstack: Dstack) -> Iterator[None]:
    """Hold the database as another program would."""
    with closing(sqlite3.connect(dstack.home / "dstack.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_a_short_lock_is_waited_for(dstack: Dstack, project: Project, tmp_path: Path) -> None:
    go = tmp_path / "go"
    waits = project(
        f"type: task\ncommands: ['while [ ! -e {go} ]; do sleep 0.05; done', exit 4]\n", name="w"
    )
    quick = project(QUICK, name="quick")
    watched = dstack.start("run", waits, "-n", "watched")
    wait_for(lambda: list(dstack.home.glob("runs/*/1/running")), "it to run", timeout=60)
    with locked(dstack):
        second = dstack.start("run", quick, "-n", "second")
        go.touch()
        (ended,) = (path.parent / "exit" for path in dstack.home.glob("runs/*/1/running"))
        wait_for(ended.exists, "the job's end", timeout=60)
        # Both have the time to find it locked; nothing hangs on it.
        time.sleep(1.0)
    assert second.communicate(timeout=120)[0] == b"hi\n"
    assert second.returncode == 0
    watched.communicate(timeout=120)
    assert watched.returncode == 4
    assert dstack.run_of("watched")["exit_code"] == 4


def test_a_long_lock_is_an_error(dstack: Dstack, project: Project, tmp_path: Path) -> None:
    go = tmp_path / "go"
    waits = project(
        f"type: task\ncommands: ['while [ ! -e {go} ]; do sleep 0.05; done', exit 4]\n", name="w"
    )
    dstack.ok("run", waits, "-n", "first", "-d")
    dstack.wait_status("first", "running")
    folder = project(QUICK)
    with locked(dstack):
        go.touch()
        wait_for(lambda: list(dstack.home.glob("runs/*/1/exit")), "the job's end", timeout=60)
        shown = dstack.start("ps", "first", "--json")
        commands = [dstack.start("run", folder), dstack.start("secrets", "set", "A", "x")]
        for command in commands:
            _, err = command.communicate(timeout=120)
            assert command.returncode == 1
            clear(err.decode())
            assert "locked by another program" in err.decode()
        # It cannot be recorded, and is true all the same.
        (run,) = json.loads(shown.communicate(timeout=120)[0])
        assert (run["status"], run["exit_code"]) == ("failed", 4)
    assert dstack.wait_status("first", "failed")["exit_code"] == 4
    assert dstack.ok("run", folder) == "hi\n"
    assert len(dstack.ps("-a")) == 2


@pytest.mark.parametrize(
    "garbage", [b"garbage " * 4096, b"x", b"SQLite format 3\0" + b"\xff" * 9000]
)
def test_a_file_of_garbage_is_not_overwritten(
    dstack: Dstack, project: Project, garbage: bytes
) -> None:
    folder = project(QUICK)
    dstack.home.mkdir(mode=0o700, exist_ok=True)
    path = dstack.home / "dstack.db"
    path.write_bytes(garbage)
    for args in (("run", folder), ("ps",), ("stop", "a"), ("secrets", "list")):
        done = dstack(*args)
        assert done.returncode == 1, (args, done)
        clear(done.stderr)
        assert "damaged" in done.stderr
        assert path.read_bytes() == garbage
    path.unlink()
    assert dstack.ok("run", folder) == "hi\n"


@pytest.mark.parametrize("garbage", [b"\0\xff" * 2000, b"- [", b"backends: 7\n"])
def test_a_configuration_of_garbage(dstack: Dstack, project: Project, garbage: bytes) -> None:
    folder = project(QUICK)
    dstack.home.mkdir(mode=0o700, exist_ok=True)
    (dstack.home / "config.yml").write_bytes(garbage)
    done = dstack("run", folder)
    assert done.returncode == 2
    assert "config.yml" in done.stderr
    assert "Traceback" not in done.stderr
    assert dstack.ps() == []


def test_thirty_at_once(dstack: Dstack, project: Project, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    folder = project(f"type: task\ncommands: ['echo $DSTACK_RUN_NAME >>{ran}', echo hi]\n")
    commands = [dstack.start("run", folder, "-d") for _ in range(30)]
    names = []
    for command in commands:
        out, err = command.communicate(timeout=300)
        assert command.returncode == 0, err.decode()
        names.append(out.decode().strip())
    assert len(set(names)) == 30
    ended = wait_for(
        lambda: (
            [run for run in dstack.ps("-a") if run["status"] == "done"][29:] and dstack.ps("-a")
        ),
        "all to end",
        timeout=300,
    )
    assert {run["name"] for run in ended} == set(names)
    assert Counter(ran.read_text().split()) == Counter(names)
    assert all(dstack.ok("logs", name) == "hi\n" for name in names[:3])


def test_the_clock_was_moved_back(dstack: Dstack, project: Project, tmp_path: Path) -> None:
    side = tmp_path / "starts"
    folder = project(
        "type: task\nretry: {on_events: [error], duration: 1h}\n"
        f"commands: ['echo $DSTACK_ATTEMPT >>{side}', '[ $DSTACK_ATTEMPT = 2 ]']\n"
    )
    name = dstack.ok("run", folder, "-d", "-n", "late").strip()
    # Wherever the run stands: all that it remembers is an hour ahead of the clock now.
    change(dstack, name, lambda run: {k: v + 3600 for k, v in run.items() if k.endswith("_at")})
    run = dstack.wait_status(name, "done", timeout=120)
    assert run["attempt"] == 2
    assert side.read_text() == "1\n2\n"


def change(dstack: Dstack, name: str, how: Any) -> None:
    """Change what is stored of a run, as a new version."""
    with closing(sqlite3.connect(dstack.home / "dstack.db", timeout=60)) as database, database:
        database.execute("BEGIN IMMEDIATE")
        (text,) = database.execute("SELECT doc FROM runs WHERE name = ?", (name,)).fetchone()
        run = json.loads(text)
        run.update(how(run))
        run["version"] = run.get("version", 0) + 1
        database.execute(
            "UPDATE runs SET doc = ?, version = ? WHERE name = ?",
            (json.dumps(run), run["version"], name),
        )
