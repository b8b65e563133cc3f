"""Profiles and their precedence, `resources`, `max_duration`: what a run may have."""

from __future__ import annotations

import os
import re

import pytest

from tests.e2e.conftest import RunTask, Task
from tests.support import Dstack

PROFILES = """
profiles:
  - name: short
    max_duration: 7m
    default: true
  - name: long
    max_duration: 2d
    retry: true
  - name: impossible
    resources: {memory: 1000TB}
"""


def limit(dstack: Dstack, folder: object, *args: str) -> str:
    """The max_duration that the script is made with, in seconds."""
    script = dstack.ok("run", str(folder), "--dry-run", *args)
    (found,) = re.findall(r"^job_max_duration='(\d*)'$", script, re.MULTILINE)
    return str(found)


def test_precedence_and_defaults(dstack: Dstack, task: Task) -> None:
    plain = task("commands: [echo hi]", name="plain")
    assert limit(dstack, plain) == str(72 * 3600)
    assert limit(dstack, plain, "--max-duration", "off") == ""
    folder = task("commands: [echo hi]", files={".dstack/profiles.yml": PROFILES})
    assert limit(dstack, folder) == "420"
    assert limit(dstack, folder, "--profile", "long") == str(2 * 86400)
    assert limit(dstack, folder, "--profile", "long", "--max-duration", "90") == "90"
    own = task("commands: [echo hi]\nmax_duration: 1h", files={".dstack/profiles.yml": PROFILES})
    assert limit(dstack, own, "--profile", "long") == "3600"
    assert limit(dstack, own, "--max-duration", "2h") == "7200"


def test_profiles_that_are_wrong(dstack: Dstack, task: Task) -> None:
    folder = task("commands: [echo hi]", files={".dstack/profiles.yml": PROFILES})
    done = dstack("run", folder, "--profile", "lon")
    assert done.returncode == 2
    assert "short" in done.stderr
    done = dstack("run", folder, "--profile", "impossible")
    assert done.returncode == 125
    (folder / ".dstack/profiles.yml").write_text("profiles:\n  - nam: x\n")
    done = dstack("run", folder)
    assert done.returncode == 2
    assert "profiles.yml:2:" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--memory", "1000TB"], ["1000TB", "local has"]),
        (["--cpu", "5000"], ["5000 CPUs", "local has"]),
        (["--gpu", "A100:64"], ["64 A100 GPUs", "local has"]),
        (["--shm-size", "1000TB"], ["shared memory", "local has"]),
        (["--spot"], ["spot", "--on-demand"]),
    ],
)
def test_what_is_not_there_is_refused_and_what_is_there_is_said(
    dstack: Dstack, run_task: RunTask, args: list[str], words: list[str]
) -> None:
    done = run_task("commands: [echo never]", *args)
    assert (done.returncode, done.stdout) == (125, "")
    for word in words:
        assert word in done.stderr
    assert dstack.ps("-a") == []


def test_resources_in_the_file_are_refused_too(run_task: RunTask) -> None:
    done = run_task("resources: {gpu: {name: H999, count: 3}}\ncommands: [echo never]")
    assert done.returncode == 125
    assert "3 H999 GPUs" in done.stderr


def limits_work(dstack: Dstack) -> bool:
    return '"limits": true' in dstack.ok("backend", "--json")


def test_the_memory_limit_kills_and_says_so(dstack: Dstack, run_task: RunTask) -> None:
    done = run_task(
        """
        name: hungry
        resources: {memory: 64MB}
        commands: ["python -c 'x = bytearray(400_000_000); print(len(x))'"]
        """
    )
    if not limits_work(dstack):
        assert (done.returncode, done.stdout) == (0, "400000000\n")
        assert "not enforced" in done.stderr
        return
    assert done.returncode == 137, done.stderr
    assert "400000000" not in done.stdout
    assert "memory is limited to 64 MB" in done.stderr
    assert "command 1 of 1 was out of memory (limit 64MB)" in done.stderr
    run = dstack.run_of("hungry")
    assert (run["reason"], run["oom"]) == ("oom", True)


def test_the_cpu_limit_reaches_the_run(dstack: Dstack, run_task: RunTask) -> None:
    # Half a second of work takes a second of time at half a CPU; how much more, the machine says.
    code = """
import time
begun, spent = time.monotonic(), time.process_time()
while time.process_time() < spent + 0.5: pass
print(time.monotonic() - begun)
"""
    text = "resources: {cpu: '0.5'}\ncommands:\n  - |\n    python - <<'END'\n"
    indented = "".join(f"    {line}\n" for line in code.strip().splitlines())
    done = run_task(text + indented + "    END")
    assert done.returncode == 0, done.stderr
    if limits_work(dstack):
        assert float(done.stdout) > 0.75
    else:
        assert "not enforced" in done.stderr


def test_max_duration_ends_the_run_with_124(dstack: Dstack, run_task: RunTask) -> None:
    done = run_task("name: late\nmax_duration: 2\ncommands: [sleep 100, echo never]")
    assert (done.returncode, done.stdout) == (124, "")
    assert "max_duration" in done.stderr
    run = dstack.run_of("late")
    assert (run["status"], run["reason"], run["exit_code"]) == ("failed", "max_duration", 124)
    assert not [each for each in dstack.leftovers() if "sleep" in each]


def test_every_processor_is_there_without_a_limit(run_task: RunTask) -> None:
    done = run_task("commands: ['python -c \"import os; print(os.cpu_count())\"']")
    assert done.stdout == f"{os.cpu_count()}\n"
