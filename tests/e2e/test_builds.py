"""`build`: made once, started from many times, made anew when what it was made from changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Task
from tests.e2e.test_environment import PACKAGE
from tests.support import Dstack, git_init, wait_for, write_files

TASK = """
build:
  - cat requirements.txt
  - mkdir -p out; date +%s%N >out/made; echo built >>data.txt
commands:
  - cat out/made data.txt
"""
FILES = {"requirements.txt": "numpy\n", "train.py": "1\n", "data.txt": "raw\n"}


@pytest.fixture
def project(task: Task) -> Path:
    return task(TASK, files=FILES)


def builds(dstack: Dstack, *args: str, cwd: Path | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dstack.ok("builds", "--json", *args, cwd=cwd))
    return found


def test_without_a_build_a_run_says_how_to_make_one(dstack: Dstack, project: Path) -> None:
    done = dstack("run", ".", cwd=project)
    assert done.returncode == 125
    assert "there is no build of this task yet" in done.stderr
    assert "`dstack build .`" in done.stderr
    assert "--build" in done.stderr
    assert dstack.ps("-a") == []


def test_a_build_is_streamed_and_every_run_starts_from_it(dstack: Dstack, project: Path) -> None:
    assert dstack.ok("build", ".", cwd=project) == "numpy\n"
    first = dstack.ok("run", ".", cwd=project)
    assert first.endswith("\nraw\nbuilt\n")
    assert dstack.ok("run", ".", cwd=project) == first
    (build,) = builds(dstack, ".", cwd=project)
    assert build["files"] == ["data.txt", "requirements.txt"]
    assert build["fits"] is True
    done = dstack("build", ".", cwd=project)
    assert (done.returncode, done.stdout) == (0, "")
    assert "fits" in done.stderr


def test_it_is_asked_for_again_when_what_it_read_changes_and_only_then(
    dstack: Dstack, project: Path
) -> None:
    dstack.ok("build", ".", cwd=project)
    before = dstack.ok("run", ".", cwd=project)
    (project / "train.py").write_text("2\n")
    (project / "new.py").write_text("new\n")
    done = dstack("run", ".", "-v", cwd=project)
    assert (done.returncode, done.stdout) == (0, before)
    assert "it starts from build-" in done.stderr
    (project / "requirements.txt").write_text("pandas\n")
    done = dstack("run", ".", "-v", cwd=project)
    assert done.returncode == 125
    assert "the build has to be made anew: requirements.txt changed" in done.stderr
    (build,) = builds(dstack, ".", cwd=project)
    assert (build["fits"], build["why_not"]) == (False, "requirements.txt changed")
    done = dstack("run", ".", "--build", cwd=project)
    assert done.returncode == 0
    # stdout is the run's output alone.
    assert done.stdout != before
    assert done.stdout.endswith("\nraw\nbuilt\n")
    assert "pandas" in done.stderr
    assert "pandas" not in done.stdout
    # What it was made from is there again, and so is the build.
    (project / "requirements.txt").write_text("numpy\n")
    assert dstack.ok("run", ".", cwd=project) == before


def test_options_count_as_part_of_what_it_was_made_from(dstack: Dstack, project: Path) -> None:
    dstack.ok("build", ".", "-e", "A=1", cwd=project)
    assert dstack("run", ".", "-e", "A=1", cwd=project).returncode == 0
    done = dstack("run", ".", "-e", "A=2", cwd=project)
    assert "the variable A changed" in done.stderr
    done = dstack("run", ".", cwd=project)
    assert "the variable A is gone" in done.stderr


def test_force_build_makes_it_in_any_case(dstack: Dstack, project: Path) -> None:
    dstack.ok("build", ".", cwd=project)
    first = dstack.ok("run", ".", "--build", cwd=project)
    assert dstack.ok("run", ".", "--force-build", cwd=project) != first
    # The one that it takes the place of is deleted.
    assert len(builds(dstack)) == 1
    dstack.ok("build", ".", "--force", cwd=project)
    assert len(builds(dstack)) == 1


def test_a_build_that_fails_is_not_kept_and_its_exit_code_is_ours(
    dstack: Dstack, task: Task
) -> None:
    folder = task("build: ['echo half >left', 'exit 7']\ncommands: [echo no]")
    for command in (["build", "."], ["run", ".", "--build"]):
        done = dstack(*command, cwd=folder)
        assert done.returncode == 7
        assert "build command 2 of 2 exited with code 7: exit 7" in done.stderr
        assert "no\n" not in done.stdout
    assert builds(dstack) == []
    assert {run["stage"] for run in dstack.ps("-a")} == {"build"}


def test_without_build_the_options_and_the_command_are_errors(dstack: Dstack, task: Task) -> None:
    folder = task("commands: [echo hi]")
    for command in (["build", "."], ["run", ".", "--build"], ["run", ".", "--force-build"]):
        done = dstack(*command, cwd=folder)
        assert done.returncode == 2
        assert "has no `build`" in done.stderr


def test_the_environment_is_the_build_s_and_scripts_are_the_run_s(
    dstack: Dstack, task: Task
) -> None:
    folder = task(
        """
        build:
          - pip install --quiet --no-index --no-build-isolation ./pkg
          - printf '#!%s\\nprint("script")\\n' "$(command -v python)" >$VIRTUAL_ENV/bin/script
          - chmod +x $VIRTUAL_ENV/bin/script
          - echo "$PWD" >$(echo $VIRTUAL_ENV/lib/python*/site-packages)/here.pth
        setup:
          - echo setup
        commands:
          - python -m tiny
          - script
          - head -1 $VIRTUAL_ENV/bin/script
          - python -c 'import sys, os; print(os.getcwd() in sys.path)'
          - pip --version >/dev/null && echo pip
        """,
        files=PACKAGE,
    )
    dstack.ok("build", ".", cwd=folder)
    for name in ("one", "two"):
        lines = dstack.ok("run", ".", "-n", name, cwd=folder).splitlines()
        home = dstack.home / "runs" / dstack.run_of(name)["id"]
        python = f"#!{home}/env/bin/python"
        assert lines == ["setup", "tiny is here", "script", python, "True", "pip"]


def test_what_a_run_writes_does_not_reach_the_build(dstack: Dstack, task: Task) -> None:
    folder = task(
        """
        build: ['echo built >file']
        commands: ['cat file', 'echo more >>file; rm -rf $VIRTUAL_ENV/lib']
        """
    )
    dstack.ok("build", ".", cwd=folder)
    assert [dstack.ok("run", ".", cwd=folder) for _ in range(3)] == ["built\n"] * 3


def test_restart_and_retry_go_on_in_the_same_folder(dstack: Dstack, task: Task) -> None:
    folder = task(
        """
        build: ['echo built >file']
        commands: ['cat file; echo more >>file; [ "$DSTACK_ATTEMPT" -gt 1 ]']
        """
    )
    dstack.ok("build", ".", cwd=folder)
    out = dstack.ok("run", ".", "-n", "again", "--retry-limit", "1h", cwd=folder)
    assert out == "built\nbuilt\nmore\n"
    dstack.ok("prune", "builds", "-y")
    assert dstack.ok("restart", "again") == "built\nmore\nmore\n"


def test_a_build_is_not_restarted(dstack: Dstack, project: Path) -> None:
    dstack.ok("build", ".", "-n", "it", cwd=project)
    done = dstack("restart", "it")
    assert done.returncode == 2
    assert "is a build" in done.stderr


def test_two_at_once_make_one(dstack: Dstack, task: Task, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    folder = task(
        f"build: ['echo begun; until [ -e {gate} ]; do sleep 0.05; done; date +%s%N >made']\n"
        "commands: [cat made]"
    )
    first = dstack.start("run", ".", "--build", cwd=folder)
    wait_for(lambda: [r for r in dstack.ps() if r["status"] == "running"], "the build to run")
    second = dstack.start("run", ".", "--build", cwd=folder, stderr=subprocess.STDOUT)
    assert second.stdout is not None
    waits = second.stdout.readline()
    assert b"makes this build already; waiting for it" in waits
    gate.touch()
    out, _ = first.communicate(timeout=60)
    other, _ = second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert out.strip()
    assert out in other
    assert len(builds(dstack)) == 1
    assert [run["stage"] for run in dstack.ps("-a")].count("build") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_dies_while_it_builds(
    dstack: Dstack, task: Task, tmp_path: Path, number: signal.Signals
) -> None:
    gate = tmp_path / "gate"
    folder = task(
        f"build: ['until [ -e {gate} ]; do sleep 0.05; done; echo 1 >made']\ncommands: [cat made]"
    )
    build = dstack.start("build", ".", "-n", "it", cwd=folder)
    wait_for(lambda: [r for r in dstack.ps() if r["status"] == "running"], "the build to run")
    build.send_signal(number)
    build.communicate(timeout=60)
    gate.touch()
    if number == signal.SIGTERM:
        assert dstack.wait_status("it", "stopped")["exit_code"] == 143
        assert builds(dstack) == []
    else:
        # Whoever looks next takes care of it, to its end: it is kept.
        dstack.wait_status("it", "done")
        assert len(builds(dstack)) == 1
        assert dstack.ok("run", ".", cwd=folder) == "1\n"


def test_secrets_are_in_no_file_of_the_build(dstack: Dstack, task: Task) -> None:
    dstack.ok("secrets", "set", "TOKEN", "hunter2-secret")
    folder = task(
        """
        env: ['TOKEN=${{ secrets.TOKEN }}', TAKEN]
        build: ['[ "$TOKEN$TAKEN" = hunter2-secrethunter2-taken ] && echo "$TOKEN" && touch made']
        commands: ['ls made; echo "$TAKEN"']
        """
    )
    taken = {"TAKEN": "hunter2-taken"}
    assert dstack.ok("build", ".", cwd=folder, env=taken) == "***\n"
    for path in (dstack.home / "builds").rglob("*"):
        if path.is_file() and path.stat().st_size < 1_000_000:
            assert b"hunter2" not in path.read_bytes(), path
    # By name only: another value asks for no other build.
    assert dstack.ok("run", ".", cwd=folder, env={"TAKEN": "other"}) == "made\nother\n"


def test_prune_deletes_builds_but_not_what_a_run_uses(
    dstack: Dstack, task: Task, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    used = task(
        f"build: [touch a]\ncommands: ['until [ -e {gate} ]; do sleep 0.05; done']", name="used"
    )
    other = task("build: [touch b]\ncommands: ['true']", name="other")
    for folder in (used, other):
        dstack.ok("build", ".", cwd=folder)
    dstack.ok("run", ".", "-d", "-n", "user", cwd=used)
    dstack.wait_status("user", "running")
    assert "freed 0" in dstack("prune", "builds", "--older", "1d", "-y").stderr
    assert "freed 0" in dstack("prune", "builds", str(used), "-y").stderr
    assert len(builds(dstack)) == 2
    done = dstack("prune", "builds", "-y")
    assert done.returncode == 0
    assert "of active runs" in done.stderr
    (left,) = builds(dstack)
    assert left["project"] == str(used)
    gate.touch()
    dstack.wait_status("user", "done")
    old = time.time() - 3 * 86400
    os.utime(dstack.home / "builds" / left["id"] / "used", (old, old))
    dstack.ok("prune", "builds", "--older", "2d", "-y")
    assert builds(dstack) == []


def test_what_killed_commands_left_is_swept(dstack: Dstack, project: Path) -> None:
    dstack.ok("build", ".", cwd=project)
    folder = dstack.home / "builds"
    write_files(folder / ".new-0123456789ab", {"files/x": "1"})
    write_files(folder / ".old-0123456789ab", {"files/x": "1"})
    write_files(folder / "damaged", {"build.json": "garbage"})
    assert len(builds(dstack)) == 1
    dstack.ok("prune", "builds", "-y")
    assert sorted(os.listdir(folder)) == ["lock"]


def test_a_folder_of_a_repository(dstack: Dstack, task: Task) -> None:
    folder = task(TASK, files={**FILES, "../lib/x": "1\n"}, name="repo/sub")
    git_init(folder.parent)
    dstack.ok("build", ".", cwd=folder)
    (build,) = builds(dstack, ".", cwd=folder)
    assert build["files"] == ["sub/data.txt", "sub/requirements.txt"]
    assert build["dir"] == "sub"
    (folder.parent / "lib/x").write_text("2\n")
    assert dstack.ok("run", ".", cwd=folder).endswith("raw\nbuilt\n")


def test_builds_are_listed(dstack: Dstack, project: Path) -> None:
    assert "no builds yet" in dstack("builds").stderr
    dstack.ok("build", ".", "-n", "it", cwd=project)
    header, line = dstack.ok("builds").splitlines()
    assert header.split()[:3] == ["NAME", "FILE", "SIZE"]
    assert line.startswith("it ")
    assert line.endswith("data.txt, requirements.txt")
    _, line = dstack.ok("builds", ".", cwd=project).splitlines()
    assert " yes " in line
