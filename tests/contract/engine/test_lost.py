"""A keeper, a folder or a disk that is lost: what is said of the job, and what is left of it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from dstack.run.observation import Absent, Unknown

from .conftest import Bench, gone, marked, wait_for


def test_a_keeper_killed_while_the_environment_is_made(bench: Bench, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/child\nexec /bin/sleep 1000\n")
    python.chmod(0o755)
    version = f"3.{sys.version_info.minor}"
    directory = bench.start("true", python=version, interpreter=str(python))
    child = bench.number(tmp_path / "child")
    keeper = int(os.readlink(directory / "pid").split(":")[0])
    os.kill(keeper, signal.SIGKILL)
    done = bench.ended(directory)
    assert (done.code, done.signal, done.reason) == (137, 9, "killed")
    assert done.stage == "environment"
    assert gone(child)


@pytest.mark.parametrize("hidden", ["", "setsid", "env -i setsid"])
def test_a_job_whose_folder_is_deleted_is_ended(bench: Bench, hidden: str) -> None:
    directory = bench.start(
        f"({hidden} /bin/sh -c 'echo $$ >child; exec /bin/sleep 1000' &)", "/bin/sleep 1000"
    )
    child = bench.number(directory.parent / "code" / "child")
    keeper = bench.running(directory)
    shutil.rmtree(directory)
    assert bench.poll(directory) == Absent()
    assert gone(child)
    wait_for(lambda: gone(keeper), "the keeper's end")
    assert marked(f"{directory.parent.name}-1") == []


def test_what_cannot_be_read_is_not_missing(quick: Bench) -> None:
    # A link to itself: root, too, cannot read through it.
    loop = quick.home.job("loop", 1)
    loop.parent.parent.mkdir(parents=True)
    loop.parent.symlink_to(loop.parent)
    seen = quick.poll(loop)
    assert isinstance(seen, Unknown)
    assert str(loop) in seen.why
    loop.parent.unlink()
