"""A disk that is full, read-only, or emptied by somebody else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.faults.conftest import Place, clear, mount
from tests.support import Dstack, wait_for

QUICK = "type: task\ncommands: [echo hi]\n"


def fill(folder: Path) -> Path:
    """Take all the space that is left, to the last byte."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                if file.write(b"x" * size) < size:
                    size >>= 1
            except OSError:
                size >>= 1
    return path


@pytest.mark.parametrize("detached", [False, True])
def test_full_while_the_run_logs(
    small: Path, dstack: Dstack, project: Project, tmp_path: Path, detached: bool
) -> None:
    go = tmp_path / "go"
    folder = project(
        "type: task\ncommands:\n"
        f"  - while [ ! -e {go} ]; do sleep 0.05; done\n"
        "  - head -c 100000000 /dev/zero | tr '\\0' x || true\n  - exit 7\n"
        "  - echo never\n"
    )
    more = ["-d"] if detached else []
    cli = dstack.start("run", folder, "-n", "big", *more, stdout=subprocess.DEVNULL)
    _running(dstack, "big")
    filler = fill(small)
    # Some of the output finds room, and most of it does not.
    os.truncate(filler, filler.stat().st_size - (1 << 20))
    go.touch()
    wait_for(lambda: list(small.glob("runs/*/1/exit")), "the job's end", timeout=60)
    _, err = cli.communicate(timeout=120)
    if not detached:
        # It knows the end, whether or not it can be kept now.
        assert cli.returncode in (1, 7)
        clear(err.decode())
    done = dstack("ps", "--json", "big")
    assert done.returncode == 0 or "full" in done.stderr
    filler.unlink()
    run = dstack.wait_status("big", "failed")
    assert (run["reason"], run["exit_code"]) == ("command_failed", 7)
    log = dstack.raw("logs", "big").stdout
    assert set(log) == {ord("x")}
    dstack.ok("rm", "big")
    folder.joinpath(".dstack.yml").write_text(QUICK)
    assert dstack.ok("run", folder) == "hi\n"


def _running(dstack: Dstack, name: str) -> None:
    """Wait until the run is known and its commands run."""
    wait_for(
        lambda: name in dstack.ok("ps", "-a") and dstack.run_of(name)["status"] == "running",
        f"{name} to run",
        timeout=60,
    )


@pytest.mark.parametrize("fresh", [False, True])
def test_full_when_a_run_is_submitted(
    small: Path, dstack: Dstack, project: Project, fresh: bool
) -> None:
    folder = project(QUICK)
    if not fresh:
        dstack.ok("run", folder, "-n", "before")
    filler = fill(small)
    for args in (("run", folder), ("run", folder, "-d")):
        done = dstack(*args)
        assert done.returncode in (1, 125), done.stderr
        clear(done.stderr)
        assert "full" in done.stderr or "No space left" in done.stderr, done.stderr
    filler.unlink()
    assert dstack.ok("run", folder) == "hi\n"
    if not fresh:
        assert dstack.ok("logs", "before") == "hi\n"


def test_full_when_a_build_is_kept(
    small: Path, dstack: Dstack, project: Project, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    folder = project(
        {
            ".dstack.yml": "type: task\nbuild:\n  - echo begun; cat in >out\n"
            f"  - until [ -e {go} ]; do sleep 0.05; done\ncommands: [cat out]\n",
            "in": "in\n",
        }
    )
    cli = dstack.start("build", folder, "-n", "made")
    wait_for(lambda: list(small.glob("runs/*/code/out")), "it to run", timeout=60)
    _running(dstack, "made")
    filler = fill(small)
    go.touch()
    wait_for(lambda: list(small.glob("runs/*/1/exit")), "its end", timeout=60)
    _, err = cli.communicate(timeout=120)
    clear(err.decode())
    filler.unlink()
    # It knows the end, whether or not that could be recorded then.
    run = dstack.wait_status("made", "failed")
    assert (run["reason"], run["exit_code"]) == ("start_failed", 125)
    assert cli.returncode in (1, 125)
    assert run["message"] == "what the build left cannot be kept: the disk may be full"
    assert os.listdir(small / "builds") == ["lock"]
    assert dstack.ok("run", folder, "--build", "-n", "after") == "in\n"


def test_read_only(small: Path, dstack: Dstack, project: Project) -> None:
    folder = project(QUICK)
    dstack.ok("run", folder, "-n", "before")
    # Whatever is written still after a command's end.
    wait_for(lambda: not dstack.leftovers(), "all to be quiet", timeout=60)
    mount("-o", "remount,ro", small)
    for args in (("run", folder), ("run", folder, "-d"), ("rm", "before"), ("secrets", "set", "A")):
        done = dstack(*args, input="x")
        assert done.returncode in (1, 2, 125), args
        clear(done.stderr)
    mount("-o", "remount,rw", small)
    assert dstack.ok("logs", "before") == "hi\n"
    assert dstack.ok("run", folder) == "hi\n"


@pytest.mark.parametrize("what", ["run", "attempt"])
def test_the_runs_folder_is_deleted_while_it_runs(
    dstack: Dstack, project: Project, place: Place, begun: Callable[[str], None], what: str
) -> None:
    folder = project(place.head + "commands: [echo begun, sleep 1000]\n")
    cli = dstack.start("run", folder, "-n", "gone")
    place.run()
    begun("gone")
    (run_folder,) = dstack.home.glob("runs/*")
    run_id = run_folder.name
    shutil.rmtree(run_folder if what == "run" else run_folder / "1")
    _, err = cli.communicate(timeout=120)
    assert cli.returncode == 137
    clear(err.decode())
    run = dstack.run_of("gone")
    assert (run["id"], run["status"], run["reason"]) == (run_id, "failed", "killed")
    # The fixture says which processes are left.


def test_the_folder_of_a_finished_run_is_deleted(dstack: Dstack, project: Project) -> None:
    folder = project(QUICK)
    dstack.ok("run", folder, "-n", "gone")
    (run_folder,) = dstack.home.glob("runs/*")
    shutil.rmtree(run_folder)
    assert dstack.run_of("gone")["status"] == "done"
    logs = dstack("logs", "gone")
    assert logs.stdout == ""
    assert "Traceback" not in logs.stderr
    assert dstack("attach", "gone").returncode == 0
    # What is missing is made again from the snapshot.
    assert dstack.ok("restart", "gone") == "hi\n"
    shutil.rmtree(run_folder)
    dstack.ok("rm", "gone")
    assert dstack.ps("-a") == []
