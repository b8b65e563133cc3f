"""What goes wrong with another machine while a run is there, or on the way to it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.faults.conftest import clear
from tests.faults.cut_rounds import masters
from tests.faults.rounds import kill, supervisors
from tests.hosts.client import Client
from tests.hosts.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.hosts.services import Hosts
from tests.support import Dstack, wait_for

# Prints `begun`, then a line a tenth of a second until it is told to go; exits with 3.
WAITS = """\
type: task
commands:
  - |
    echo begun
    i=0
    until [ -e ~/go ]; do i=$((i + 1)); echo $i; sleep 0.1; done
    exit 3
"""


def backends(*aliases: str) -> str:
    """A `config.yml` in which each host is a backend called as it is."""
    lines = [f"  - {{name: {alias}, type: ssh, host: {alias}}}\n" for alias in aliases]
    return "backends:\n" + "".join(lines)


@pytest.fixture
def far(hosts: Hosts, ssh: Client, home: Path) -> Iterator[Hosts]:
    """The hosts that `ssh` knows; backend alpha. Named before `dstack` in a test."""
    del ssh
    (home / "config.yml").write_text(backends("alpha"))
    yield hosts
    for pid in masters(home):
        kill(pid)
    # An end whose other one vanished during a cut lives until TCP itself gives up, hours later.
    hosts["alpha"].link.reset()


def go(far: Hosts) -> None:
    """Let a job that waits end."""
    far["alpha"].write("/home/me/go", "", user="me")


def is_whole(output: str) -> None:
    """No line of WAITS is missing or doubled."""
    lines = output.splitlines()
    assert lines == ["begun", *map(str, range(1, len(lines)))]


def attached(dstack: Dstack, folder: Path) -> subprocess.Popen[bytes]:
    """`dstack run` that shows output already."""
    # Unbuffered: what is read here is not to be taken from who reads on.
    cli = dstack.start("run", folder, "-n", "far", bufsize=0)
    assert cli.stdout
    assert cli.stdout.readline() == b"begun\n"
    return cli


# ---- the way there ----


@pytest.mark.parametrize("how", ["drop", "down", "half_open", "reset"])
def test_output_goes_on_after_a_cut(how: str, far: Hosts, dstack: Dstack, project: Project) -> None:
    cli = attached(dstack, project(WAITS))
    link = far["alpha"].link
    {"drop": link.drop, "down": link.cut, "half_open": link.half_open, "reset": link.reset}[how]()
    time.sleep(1)
    link.heal()
    go(far)
    out, err = cli.communicate(timeout=120)
    assert cli.returncode == 3
    is_whole("begun\n" + out.decode())
    assert dstack.ok("logs", "far") == "begun\n" + out.decode()
    assert "Traceback" not in err.decode()


def test_a_stop_that_cannot_be_told_is_remembered(
    far: Hosts, dstack: Dstack, project: Project
) -> None:
    dstack.ok("run", project(WAITS), "-n", "far", "-d")
    wait_for(lambda: "begun" in dstack("logs", "far").stdout, "it to begin", timeout=60)
    far["alpha"].link.drop()
    dstack.wait_status("far", "unknown", timeout=90)
    said = dstack("stop", "far", "-y", timeout=60)
    assert said.returncode == 1  # it has not ended
    assert "as soon as it answers" in said.stderr
    assert far["alpha"].jobs()
    far["alpha"].link.heal()
    run = dstack.wait_status("far", "stopped", timeout=90)
    assert run["reason"] == "stopped"
    wait_for(lambda: not far["alpha"].processes("me") or not _runs(far), "its processes to end")


def test_a_run_goes_on_while_nobody_is_here(far: Hosts, dstack: Dstack, project: Project) -> None:
    cli = attached(dstack, project(WAITS))
    # The machine here is switched off: nobody says goodbye.
    far["alpha"].link.drop()
    cli.kill()
    cli.communicate()
    for pid in [*supervisors(dstack), *masters(dstack.home)]:
        kill(pid)
    far["alpha"].link.reset()
    time.sleep(1)
    assert _runs(far)
    go(far)
    wait_for(lambda: not _runs(far), "it to end by itself")
    ended = datetime.now(timezone.utc)
    time.sleep(8)
    far["alpha"].link.heal()
    run = dstack.wait_status("far", "failed", timeout=90)
    assert (run["reason"], run["exit_code"]) == ("command_failed", 3)
    # Then, and not when somebody looked again.
    late = datetime.fromisoformat(run["finished_at"].replace("Z", "+00:00")) - ended
    assert abs(late.total_seconds()) < 4
    is_whole(dstack.ok("logs", "far"))


def test_a_limit_holds_while_nobody_is_here(far: Hosts, dstack: Dstack, project: Project) -> None:
    cli = attached(dstack, project(WAITS + "max_duration: 8s\n"))
    far["alpha"].link.drop()
    cli.kill()
    cli.communicate()
    for pid in [*supervisors(dstack), *masters(dstack.home)]:
        kill(pid)
    wait_for(lambda: not _runs(far), "it to be ended", timeout=60)
    far["alpha"].link.heal()
    run = dstack.wait_status("far", "failed", timeout=90)
    assert run["reason"] == "max_duration"


def test_what_is_not_reached_is_said(far: Hosts, dstack: Dstack, project: Project) -> None:
    aliases = ("alpha.wrongkey", "alpha.stranger", "nowhere", "bare", "nogit")
    (dstack.home / "config.yml").write_text(backends(*aliases))
    folder = project("type: task\ncommands: ['true']\n")
    far["bare"].change_key()
    far["nogit"].stop_sshd()
    wanted = {
        "alpha.wrongkey": "it does not let this user in",
        "alpha.stranger": "its host key is not known here",
        "nowhere": "there is no machine of that name",
        "bare": "its host key is another one than before",
        "nogit": "nothing answers at its ssh port",
    }
    for alias, why in wanted.items():
        done = dstack("run", folder, "--backend", alias)
        clear(done.stderr)
        assert f"{alias} cannot be reached: {why}" in done.stderr
        assert done.returncode not in {0, 1}
    assert [run for run in dstack.ps("-a") if run["status"] not in {"failed", "done"}] == []


# ---- the host ----


def test_a_host_that_was_restarted(far: Hosts, dstack: Dstack, project: Project) -> None:
    cli = attached(dstack, project(WAITS))
    far["alpha"].reboot()
    out, err = cli.communicate(timeout=120)
    run = dstack.run_of("far")
    assert (run["status"], run["reason"]) == ("failed", "host_restarted")
    assert cli.returncode == run["exit_code"]
    is_whole("begun\n" + out.decode())
    assert "was restarted" in err.decode()


def test_a_host_that_was_restarted_runs_it_again(
    far: Hosts, dstack: Dstack, project: Project
) -> None:
    retry = "retry: {on_events: [interruption], duration: 1h}\n"
    cli = attached(dstack, project(WAITS + retry))
    far["alpha"].reboot()
    go(far)
    cli.communicate(timeout=120)
    run = dstack.run_of("far")
    assert (run["reason"], run["exit_code"], run["attempt"]) == ("command_failed", 3, 2)


def test_a_full_disk_there(far: Hosts, dstack: Dstack, project: Project) -> None:
    far["alpha"].small_disk("16m")
    folder = project("type: task\ncommands: [echo well]\n")
    filler = far["alpha"].fill()
    full = dstack("run", folder, "-n", "full")
    assert full.returncode not in {0, 1}
    clear(full.stderr)
    assert "No space left on device" in full.stderr
    filler.unlink()
    done = dstack("run", folder, "-n", "full-no-more")
    assert (done.returncode, done.stdout) == (0, "well\n")


def test_a_disk_there_that_fills_up(far: Hosts, dstack: Dstack, project: Project) -> None:
    far["alpha"].small_disk("16m")
    text = "type: task\ncommands:\n  - echo begun; head -c 30000000 /dev/zero; exit 4\n"
    done = dstack("run", project(text), "-n", "fills")
    run = dstack.run_of("fills")
    assert run["status"] == "failed"
    assert done.returncode == run["exit_code"]
    assert done.stdout.startswith("begun\n")
    clear(done.stderr)


# ---- sharing it ----


def test_two_users_of_one_host_do_not_meet(far: Hosts, dstack: Dstack, project: Project) -> None:
    (dstack.home / "config.yml").write_text(backends("alpha", "alpha.other"))
    look = "cat ~/../*/.dstack/runs/*/*/log 2>/dev/null | grep -c begun"
    folder = project(f"type: task\ncommands: [echo begun, id -un, {look}]\n")
    for alias, user in (("alpha", "me"), ("alpha.other", "other")):
        done = dstack("run", folder, "--backend", alias)
        assert done.stdout.split() == ["begun", user, "1"]
        assert far["alpha"].home(user).joinpath(".dstack").stat().st_mode & 0o777 == 0o700


def test_two_machines_of_one_user_do_not_disturb_each_other(
    far: Hosts, dstack: Dstack, project: Project, tmp_path: Path, templates: Path
) -> None:
    elsewhere = tmp_path / "laptop"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "envs").symlink_to(templates)
    (elsewhere / "config.yml").write_text(backends("alpha"))
    other = Dstack(dstack.binary, elsewhere, tmp_path)
    mine = attached(dstack, project(WAITS))
    try:
        theirs = other(
            "run", project("type: task\ncommands: [echo theirs]\n", name="b"), "-n", "far"
        )
        assert (theirs.returncode, theirs.stdout) == (0, "theirs\n")
        other.ok("stop", "-a", "-x", "-y")
        other.ok("rm", "far", "-y")
        other("prune", "-y")
        assert mine.poll() is None
        go(far)
        out, _ = mine.communicate(timeout=60)
        assert mine.returncode == 3
        is_whole("begun\n" + out.decode())
        assert other.leftovers() == []
    finally:
        mine.kill()
        mine.communicate()
        for pid in masters(elsewhere):
            kill(pid)


def test_many_runs_of_one_new_project_at_once(far: Hosts, dstack: Dstack, project: Project) -> None:
    # None of them finds its code there, and one of them sends it. And sshd allows ten sessions in
    # a connection (MaxSessions); each of these takes two.
    folder = project(WAITS)
    clis = [dstack.start("run", folder, "-n", f"far-{n}", bufsize=0) for n in range(7)]
    try:
        for cli in clis:
            assert cli.stdout
            first = cli.stdout.readline() + cli.stdout.readline()
            assert first == b"begun\n1\n", cli.communicate(timeout=60)
        time.sleep(1)
        go(far)
        for cli in clis:
            out, err = cli.communicate(timeout=60)
            assert cli.returncode == 3
            is_whole("begun\n1\n" + out.decode())
            assert "does not answer" not in err.decode()
    finally:
        for cli in clis:
            cli.kill()
            cli.communicate()


def _runs(far: Hosts) -> list[str]:
    """What runs on alpha for dstack, but for connections."""
    found = []
    for process in far["alpha"].processes("me"):
        try:
            environ = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        if b"DSTACK_JOB=" in environ:
            found.append(process.command)
    return found
