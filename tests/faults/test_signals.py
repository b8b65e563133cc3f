"""Signals to the attached command, and to what a run left in sessions of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.faults.conftest import Place
from tests.faults.rounds import supervisors
from tests.support import Dstack, wait_for

Begun = Callable[[str], None]


GATED = "  - while [ ! -e {side}/go ]; do sleep 0.05; done\n"


def start(place: Place, folder: Path, name: str) -> subprocess.Popen[bytes]:
    """Start an attached run and wait until its commands run."""
    cli = place.dstack.start("run", folder, "-n", name)
    place.run()
    return cli


def test_hangup_leaves_the_run_to_the_background(
    dstack: Dstack, project: Project, place: Place, begun: Begun
) -> None:
    gated = GATED.format(side=place.inside)
    folder = project(f"{place.head}commands:\n  - echo begun\n{gated}  - echo ended\n  - exit 5\n")
    cli = start(place, folder, "left")
    begun("left")
    cli.send_signal(signal.SIGHUP)
    out, _ = cli.communicate(timeout=60)
    assert out == b"begun\n"
    wait_for(lambda: supervisors(dstack), "the background supervisor", timeout=60)
    attached = dstack.start("attach", "left")
    (place.side / "go").touch()
    out, _ = attached.communicate(timeout=120)
    assert (attached.returncode, out) == (5, b"begun\nended\n")


def test_stop_reaches_the_run_of_a_command_that_sleeps(
    dstack: Dstack, project: Project, place: Place, begun: Begun
) -> None:
    folder = project(f"{place.head}commands: [echo begun, sleep 1000]\n")
    cli = start(place, folder, "asleep")
    begun("asleep")
    # As Ctrl-Z does it; SIGSTOP cannot be missed.
    cli.send_signal(signal.SIGSTOP)
    try:
        assert dstack.run_of("asleep")["status"] == "running"
        dstack.ok("stop", "asleep")
        assert dstack.run_of("asleep")["status"] == "stopped"
    finally:
        cli.send_signal(signal.SIGCONT)
    out, _ = cli.communicate(timeout=60)
    assert (cli.returncode, out) == (dstack.run_of("asleep")["exit_code"], b"begun\n")


def test_a_run_ends_while_its_command_sleeps(
    dstack: Dstack, project: Project, place: Place, begun: Begun
) -> None:
    gated = GATED.format(side=place.inside)
    folder = project(f"{place.head}commands:\n  - echo begun\n{gated}  - exit 9\n")
    cli = start(place, folder, "alone")
    begun("alone")
    cli.send_signal(signal.SIGSTOP)
    try:
        (place.side / "go").touch()
        assert dstack.wait_status("alone", "failed")["exit_code"] == 9
        assert dstack.ok("logs", "alone") == "begun\n"
    finally:
        cli.send_signal(signal.SIGCONT)
    out, _ = cli.communicate(timeout=60)
    assert (cli.returncode, out) == (9, b"begun\n")


def test_a_closed_pipe_stops_the_run(dstack: Dstack, project: Project, place: Place) -> None:
    folder = project(place.head + "commands: ['while :; do echo line; sleep 0.01; done']\n")
    read, write = os.pipe()
    cli = dstack.start("run", folder, "-n", "headed", stdout=write)
    os.close(write)
    with os.fdopen(read, "rb") as output:
        assert output.readline() == b"line\n"
    _, err = cli.communicate(timeout=60)
    assert cli.returncode == 141
    assert b"Traceback" not in err
    assert dstack.run_of("headed")["status"] == "stopped"


@pytest.mark.parametrize(
    "children",
    ["setsid sleep 1000 &", "(env -i setsid sleep 1000 &)", "(trap '' TERM; setsid sleep 1000 &)"],
)
@pytest.mark.parametrize("how", [[], ["-x"]])
def test_stop_reaches_what_hides(
    dstack: Dstack, project: Project, begun: Begun, children: str, how: list[str]
) -> None:
    # A length of its own tells this test's processes, whatever their environment.
    token = f"{7000 + os.getpid() % 1000}.{os.urandom(3).hex().translate(LETTERS)}"
    script = children.replace("1000", token)
    folder = project(
        f"type: task\ncommands:\n  - |\n    {script}\n  - echo begun\n  - sleep {token}\n"
    )
    dstack.ok("run", folder, "-n", "hidden", "-d")
    begun("hidden")
    wait_for(lambda: len(sleeping(token)) == 2, "both to sleep", timeout=60)
    dstack.ok("stop", "hidden", *how)
    assert sleeping(token) == []
    run = dstack.run_of("hidden")
    assert (run["status"], run["signal"]) == ("stopped", 9 if how else 15)


LETTERS = str.maketrans("abcdef", "012345")


def sleeping(token: str) -> list[str]:
    """The processes of `sleep TOKEN`."""
    wanted = b"sleep\0" + token.encode() + b"\0"
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes() == wanted:
                found.append(entry.name)
        except OSError:
            continue
    return found
