"""`python`, `setup`, `cache` and `restart`: what environment a run gets, and what is kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import RunTask, Task
from tests.support import Dstack, processes_of, wait_for, write_files

PACKAGE = {
    "pkg/pyproject.toml": """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
""",
    # A build backend of its own, so that nothing is fetched.
    "pkg/backend.py": """
import zipfile

META = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n"
WHEEL = "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"


def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(directory + "/" + name, "w") as wheel:
        wheel.writestr("tiny.py", "print('tiny is here')\\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", META)
        wheel.writestr("tiny-1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return name
""",
}


def pyenv_versions() -> list[str]:
    """Minor versions, 3.8 and later, that pyenv has on this machine."""
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names = [path.name for path in folder.glob("3.*")] if folder.is_dir() else []
    found = {".".join(name.split(".")[:2]) for name in names if (folder / name / "bin").is_dir()}
    return [each for each in (f"3.{minor}" for minor in range(8, 15)) if each in found]


def other_version() -> str:
    mine = f"3.{sys.version_info.minor}"
    return next((each for each in reversed(pyenv_versions()) if each != mine), mine)


@pytest.mark.parametrize("version", [None, other_version()])
def test_pip_and_uv_both_work_inside(dstack: Dstack, task: Task, version: str | None) -> None:
    line = f"python: {version}" if version else ""
    folder = task(
        f"""
        {line}
        setup:
          - pip install -q --no-index --no-build-isolation ./pkg
        commands:
          - python -c 'import tiny, sys; print(sys.version_info[:2])'
          - pip uninstall -q -y tiny 2> /dev/null
          - uv pip install -q --offline --no-build-isolation ./pkg
          - python -c 'import tiny'
          - python -c 'import sys; assert sys.prefix.endswith("/env"), sys.prefix'
          - pip --version | sed 's/.*python //'
        """,
        files=PACKAGE,
    )
    out = dstack.ok("run", folder, timeout=240)
    wanted = version or f"3.{sys.version_info.minor}"
    assert out.splitlines() == [
        "tiny is here",
        f"(3, {wanted.split('.')[1]})",
        "tiny is here",
        f"{wanted})",
    ]


def test_versions_of_pyenv_that_are_not_activated_are_found(
    dstack: Dstack, task: Task, tmp_path: Path
) -> None:
    mine = sys.version_info.minor
    version = f"3.{8 if mine != 8 else 9}"
    interpreter = tmp_path / f"pyenv/versions/{version}.99/bin/python{version}"
    write_files(interpreter.parent, {interpreter.name: "#!/bin/sh\n"})
    interpreter.chmod(0o755)
    folder = task(f"python: {version}\ncommands: [python --version]")
    # A PATH with nothing but tools: no other Python of that version is met first.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "git", "sed", "uname"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    env = {"PYENV_ROOT": str(tmp_path / "pyenv"), "PATH": str(tools)}
    script = dstack.ok("run", folder, "--dry-run", env=env)
    assert f"job_interpreter='{interpreter}'" in script


def test_a_version_that_is_not_there_is_an_error_that_lists_what_is(
    dstack: Dstack, run_task: RunTask
) -> None:
    there = set(pyenv_versions()) | {f"3.{sys.version_info.minor}"}
    missing = next(f"3.{minor}" for minor in range(14, 6, -1) if f"3.{minor}" not in there)
    done = run_task(
        f"python: '{missing}'\ncommands: [echo never]", env={"UV_PYTHON_DOWNLOADS": "never"}
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert f"Python {missing} is not on this machine" in done.stderr
    assert f"3.{sys.version_info.minor}" in done.stderr
    assert dstack.ps("-a") == []


def test_a_version_that_no_dstack_knows_is_an_error_of_the_file(run_task: RunTask) -> None:
    for version in ("2.7", "3.99", "three"):
        done = run_task(f"python: '{version}'\ncommands: [echo never]")
        assert done.returncode == 2
        assert re.search(r"\.dstack\.yml:2:\d+: python: ", done.stderr), done.stderr


def test_setup_runs_once_in_a_shell_of_its_own(dstack: Dstack, run_task: RunTask) -> None:
    done = run_task(
        """
        name: once
        setup:
          - echo setting up
          - cd / && export LOST=yes
          - echo "in $PWD"
        commands:
          - echo "attempt $DSTACK_ATTEMPT [$LOST] ${PWD##*/}"
          - echo line >> kept; wc -l < kept
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "setting up\nin /\nattempt 1 [] code\n1\n"
    again = dstack("restart", "once")
    assert (again.returncode, again.stdout) == (0, "attempt 2 [] code\n2\n")
    assert dstack.run_of("once")["attempt"] == 2
    assert dstack.ok("logs", "once") == done.stdout + again.stdout
    assert len(dstack.ps("-a")) == 1


def test_a_retry_uses_the_same_environment_and_shows_every_attempt(
    dstack: Dstack, task: Task
) -> None:
    folder = task("""
        name: again
        retry:
          on_events: [error]
          duration: 1h
        setup: [echo setting up]
        commands:
          - echo "attempt $DSTACK_ATTEMPT"
          - test $((DSTACK_ATTEMPT % 2)) = 0
        """)
    done = dstack("run", folder)
    assert (done.returncode, done.stdout) == (0, "setting up\nattempt 1\nattempt 2\n")
    run = dstack.run_of("again")
    assert (run["status"], run["attempt"], run["exit_code"]) == ("done", 2, 0)
    # What an attempt printed comes before the news of its end.
    together = dstack.start("restart", "again", stderr=subprocess.STDOUT)
    out, _ = together.communicate(timeout=120)
    assert out.decode().splitlines() == [
        "attempt 3",
        "command 2 of 2 exited with code 1: test $((DSTACK_ATTEMPT % 2)) = 0; trying again",
        "attempt 4",
    ]


def test_a_state_folder_that_was_moved(dstack: Dstack, task: Task, tmp_path: Path) -> None:
    folder = task("""
        name: moved
        setup: [echo setting up]
        cache: [kept]
        commands:
          - echo x >> kept/lines; wc -l < kept/lines
          - pip --version | cut -d' ' -f1
        """)
    old, new = tmp_path / "old", tmp_path / "new"
    assert dstack.ok("run", folder, env={"DSTACK_HOME": str(old)}) == "setting up\n1\npip\n"
    wait_for(lambda: not processes_of(old), "what prepares the next run to end")
    old.rename(new)
    moved = {"DSTACK_HOME": str(new)}
    assert dstack.ok("logs", "moved", env=moved) == "setting up\n1\npip\n"
    # Environments know where they lie: this one is made anew.
    assert dstack.ok("restart", "moved", env=moved) == "setting up\n2\npip\n"
    assert dstack.ok("restart", "moved", env=moved) == "3\npip\n"
    assert dstack.ok("run", folder, "-n", "fresh", env=moved) == "setting up\n4\npip\n"
    assert not old.exists()


def test_no_retry_without_being_asked(dstack: Dstack, task: Task) -> None:
    folder = task("name: single\nretry: true\ncommands: [exit 3]")
    assert dstack("run", folder, "--no-retry").returncode == 3
    assert dstack.run_of("single")["attempt"] == 1


def test_caches_are_kept_after_success_and_failure(
    dstack: Dstack, task: Task, tmp_path: Path
) -> None:
    absolute = tmp_path / "made" / "absolute"
    user = tmp_path / "user"
    user.mkdir()
    folder = task(f"""
        cache: [relative/folder, '{absolute}', ~/.mine]
        commands:
          - 'for f in relative/folder {absolute} ~/.mine; do cat $f/n 2> /dev/null; done; true'
          - 'for f in relative/folder {absolute} ~/.mine; do echo "$N" >> $f/n; done'
          - exit $N
        env: [N]
        """)
    runs = [dstack("run", folder, env={"N": str(n), "HOME": str(user)}) for n in (0, 4, 0)]
    assert [done.returncode for done in runs] == [0, 4, 0], runs
    assert [done.stdout for done in runs] == ["", "0\n" * 3, "0\n4\n" * 3]
    assert (absolute / "n").read_text() == "0\n4\n0\n"
    assert (user / ".mine/n").read_text() == "0\n4\n0\n"
    assert not (folder / "relative").exists()


def test_a_cache_belongs_to_its_project_and_task_file(dstack: Dstack, task: Task) -> None:
    text = "cache: [kept]\ncommands: ['cat kept/n 2> /dev/null; echo x > kept/n']"
    one = task(text, name="one")
    dstack.ok("run", one)
    assert dstack.ok("run", one) == "x\n"
    (one / "other.dstack.yml").write_bytes((one / ".dstack.yml").read_bytes())
    assert dstack.ok("run", one, "-f", one / "other.dstack.yml") == ""
    assert dstack.ok("run", task(text, name="two")) == ""


@pytest.mark.parametrize("path", ["/", "''", "../up", "a/../../b"])
def test_a_cache_that_climbs_out_is_refused(run_task: RunTask, path: str) -> None:
    done = run_task(f"cache: [{path}]\ncommands: [echo never]")
    assert done.returncode == 2
    assert re.search(r"\.dstack\.yml:2:\d+: cache", done.stderr), done.stderr
