"""What the next command finds after everybody of dstack's was killed, and how it goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from tests.conftest import Project
from tests.faults.conftest import Place
from tests.faults.rounds import keepers, kill, supervisors
from tests.support import Dstack, processes_of, wait_for

RETRIED = """\
retry: {{on_events: [error], duration: 1h}}
commands:
  - echo $DSTACK_ATTEMPT >>{side}/starts
  - while [ ! -e {side}/go ]; do sleep 0.05; done
  - '[ $DSTACK_ATTEMPT = 2 ]'
"""


@pytest.mark.parametrize("when", ["it runs", "it waits"])
def test_a_retry_outlives_the_supervisor(
    dstack: Dstack, project: Project, place: Place, when: str
) -> None:
    folder = project(place.head + RETRIED.format(side=place.inside))
    dstack.ok("run", folder, "-n", "again", "-d")
    place.run()
    starts, go = place.side / "starts", place.side / "go"
    wait_for(lambda: supervisors(dstack) and starts.exists(), "it to begin", timeout=60)
    if when == "it waits":
        go.touch()
        wait_for(lambda: list(dstack.home.glob("runs/*/1/exit")), "attempt 1 to end", timeout=60)
    for pid in supervisors(dstack):
        kill(pid)
    go.touch()
    wait_for(lambda: list(dstack.home.glob("runs/*/1/exit")), "attempt 1 to end", timeout=60)
    run = dstack.wait_status("again", "done", timeout=120)
    assert run["attempt"] == 2
    assert starts.read_text() == "1\n2\n"


def test_killed_while_the_code_is_laid_out(dstack: Dstack, project: Project) -> None:
    files = {f"{i % 40}/{i}.txt": f"{i}\n" for i in range(4000)}
    task = "type: task\ncommands: ['ls */*.txt | wc -l', 'cat */*.txt | wc -l']\n"
    folder = project({**files, ".dstack.yml": task})
    cli = dstack.start("run", folder, "-n", "large")
    wait_for(lambda: list(dstack.home.glob("runs/*")), "its folder", timeout=120)
    cli.kill()
    cli.communicate()
    dstack.wait_status("large", "done", timeout=120)
    assert dstack.ok("logs", "large").split() == ["4000", "4000"]


def test_the_machine_was_restarted(
    dstack: Dstack, project: Project, place: Place, begun: Callable[[str], None]
) -> None:
    folder = project(place.head + "commands: [echo begun, sleep 1000]\n")
    dstack.ok("run", folder, "-n", "old", "-d")
    begun("old")
    wait_for(lambda: supervisors(dstack), "the supervisor", timeout=60)
    # Who could still look at it, or write its end, goes first; then what it runs.
    for pid in supervisors(dstack):
        kill(pid)
    wait_for(lambda: not supervisors(dstack), "the supervisor to be gone")
    (link,) = (path.parent / "pid" for path in dstack.home.glob("runs/*/1/job.sh"))
    for pid in keepers(dstack):
        kill(pid)
    place.fall()
    (job,) = dstack.home.glob("runs/*/1")
    run_id = job.parent.name
    wait_for(lambda: killed_all(dstack, run_id), "its processes to be gone")
    assert not (job / "exit").exists()
    number, start, _ = os.readlink(link).split(":")
    link.unlink()
    link.symlink_to(f"{number}:{start}:00000000-0000-0000-0000-000000000000")
    run = dstack.run_of("old")
    assert (run["status"], run["reason"]) == ("failed", "host_restarted")
    assert dstack.ok("logs", "old") == "begun\n"
    assert dstack("attach", "old").returncode == run["exit_code"]


def killed_all(dstack: Dstack, run_id: str) -> bool:
    """Kill what belongs to the run; whether nothing was there."""
    found = processes_of(dstack.home, [run_id])
    for line in found:
        kill(int(line.split()[0]))
    return not found


def test_a_stop_that_was_killed_is_carried_out(
    dstack: Dstack, project: Project, place: Place, begun: Callable[[str], None]
) -> None:
    deaf = "commands:\n  - trap '' TERM\n  - echo begun\n  - while :; do sleep 1; done\n"
    folder = project(place.head + deaf)
    dstack.ok("run", folder, "-n", "deaf", "-d")
    begun("deaf")
    stop = dstack.start("stop", "deaf")
    wait_for(lambda: dstack.run_of("deaf")["status"] == "stopping", "the order", timeout=60)
    stop.kill()
    stop.communicate()
    for pid in supervisors(dstack):
        kill(pid)
    run = dstack.wait_status("deaf", "stopped", timeout=120)
    assert run["reason"] == "stopped"


def test_the_keeper_is_killed(
    dstack: Dstack, project: Project, begun: Callable[[str], None]
) -> None:
    folder = project("""\
type: task
commands:
  - setsid sleep 1000 &
  - (env -i setsid sleep 1000 &)
  - echo begun
  - sleep 1000
""")
    cli = dstack.start("run", folder, "-n", "orphans")
    wait_for(lambda: list(dstack.home.glob("runs/*/1/running")), "it to run", timeout=60)
    begun("orphans")
    (keeper,) = keepers(dstack)
    kill(keeper)
    out, err = cli.communicate(timeout=120)
    assert (cli.returncode, out) == (137, b"begun\n")
    assert b"killed" in err
    run = dstack.run_of("orphans")
    assert (run["status"], run["reason"], run["signal"]) == ("failed", "killed", 9)
    assert not dstack.leftovers()


def test_a_state_folder_that_vanished_ends_its_supervisor(
    dstack: Dstack, project: Project, begun: Callable[[str], None]
) -> None:
    folder = project("type: task\ncommands: [echo begun, sleep 1000]\n")
    dstack.ok("run", folder, "-n", "lost", "-d")
    begun("lost")
    wait_for(lambda: supervisors(dstack), "the supervisor", timeout=60)
    dstack.ok("stop", "lost", "-x")
    shutil.rmtree(dstack.home)
    wait_for(lambda: not processes_of(dstack.home), "the supervisor to end", timeout=60)


def test_whoever_stops_the_job_is_killed(
    dstack: Dstack, project: Project, begun: Callable[[str], None]
) -> None:
    folder = project("type: task\ncommands:\n  - trap '' TERM\n  - echo begun\n  - sleep 1000\n")
    dstack.ok("run", folder, "-n", "deaf", "-d")
    begun("deaf")
    stop = dstack.start("stop", "deaf")
    (job,) = dstack.home.glob("runs/*/1")
    wait_for(lambda: os.path.lexists(job / "stopping"), "the order to arrive", timeout=60)
    kill(int(os.readlink(job / "stopping").split(":")[0]))
    _, err = stop.communicate(timeout=120)
    assert stop.returncode == 0, err.decode()
    assert dstack.run_of("deaf")["status"] == "stopped"
