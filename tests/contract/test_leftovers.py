"""The check that every test of the command ends with finds what it must find."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import processes_of, wait_for

SLEEP = ["sleep", "300"]


@pytest.mark.parametrize(
    "start",
    [
        lambda home: subprocess.Popen(SLEEP, env={**os.environ, "DSTACK_HOME": str(home)}),
        lambda _: subprocess.Popen(SLEEP, env={**os.environ, "DSTACK_RUN_ID": "run-of-this-test"}),
        lambda _: subprocess.Popen(SLEEP, env={**os.environ, "DSTACK_JOB": ":run-of-this-test-1:"}),
        lambda home: subprocess.Popen(SLEEP, cwd=home / "runs", env={"PATH": os.environ["PATH"]}),
    ],
    ids=["by home", "by run", "by job", "by folder"],
)
def test_a_process_left_behind_is_found(
    tmp_path: Path, start: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    home = tmp_path / "home"
    (home / "runs").mkdir(parents=True)
    with start(home) as process:
        try:
            # Popen returns before the program is there, with its own name in /proc.
            wait_for(
                lambda: f"{process.pid} sleep 300 " in processes_of(home, ["run-of-this-test"]),
                "the process to be found",
            )
        finally:
            process.send_signal(signal.SIGKILL)
    assert processes_of(home, ["run-of-this-test"]) == []


def test_processes_of_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    other = {**os.environ, "DSTACK_HOME": f"{tmp_path}/home2", "DSTACK_RUN_ID": "another"}
    with subprocess.Popen(SLEEP, env=other) as process:
        try:
            assert processes_of(tmp_path / "home", ["mine"]) == []
        finally:
            process.kill()
