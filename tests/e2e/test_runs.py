"""Runs after they were started: names, ps, logs, attach, stop, restart, rm."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timezone

import pexpect
import pytest

from dstack.paths import Home
from dstack.supervise.lease import Leases
from tests.e2e.conftest import RunTask, Task
from tests.support import Dstack, wait_for

Printed = Callable[[str, str], str]
FOREVER = "commands: [echo begun, sleep 1000]"


def test_detached_prints_the_name_alone(dstack: Dstack, run_task: RunTask) -> None:
    done = run_task("commands: [echo hi, exit 5]", "-d")
    assert done.returncode == 0
    assert re.fullmatch(r"[a-z]+-[a-z]+\n", done.stdout)
    name = done.stdout.strip()
    run = dstack.wait_status(name, "failed")
    assert run["exit_code"] == 5
    attached = dstack("attach", name)
    assert (attached.returncode, attached.stdout) == (5, "hi\n")
    assert "command 2 of 2 exited with code 5: exit 5" in attached.stderr


def test_a_name_is_taken_while_its_run_is_active(
    dstack: Dstack, task: Task, printed: Printed
) -> None:
    folder = task(FOREVER)
    quick = task("commands: [echo newest]", name="quick")
    dstack.ok("run", folder, "-n", "twice", "-d")
    done = dstack("run", quick, "-n", "twice")
    assert (done.returncode, done.stdout) == (2, "")
    assert "twice" in done.stderr
    printed("twice", "begun")
    dstack.ok("stop", "twice", "-x")
    assert dstack.ok("run", quick, "-n", "twice") == "newest\n"
    assert dstack.ok("logs", "twice") == "newest\n"
    assert dstack.run_of("twice")["status"] == "done"
    assert len(dstack.ps("-a")) == 2
    oldest = dstack.ps("-a")[-1]
    assert dstack.ok("logs", oldest["id"]) == "begun\n"


def test_ps_shows_active_runs_and_the_latest_finished(dstack: Dstack, task: Task) -> None:
    quick, slow = task("commands: [echo hi]", name="quick"), task(FOREVER, name="slow")
    for name in ("one", "two"):
        dstack.ok("run", quick, "-n", name)
    dstack.ok("run", slow, "-n", "three", "-d")
    assert [run["name"] for run in dstack.ps()] == ["three", "two"]
    assert [run["name"] for run in dstack.ps("-a")] == ["three", "two", "one"]
    lines = dstack.ok("ps", "-a").splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "three", "two", "one"]
    assert "exit code" in dstack.ok("ps", "one", "-v")


def test_ps_json_has_the_promised_fields(dstack: Dstack, run_task: RunTask) -> None:
    before = datetime.now(timezone.utc)
    done = run_task("name: fields\nports: ['*:23000']\ncommands: [exit 3]")
    assert done.returncode == 3, done.stderr
    run = dstack.run_of("fields")
    assert re.fullmatch(r"[0-9a-f]{12}", run["id"])
    local = run["ports"][0].pop("local")
    assert 23000 <= local <= 65535
    expected = {
        "name": "fields", "status": "failed", "reason": "command_failed", "exit_code": 3,
        "message": "command 1 of 1 exited with code 3: exit 3", "signal": None, "oom": False,
        "backend": "local", "image": None, "ports": [{"run": 23000}],
    }  # fmt: skip
    assert {key: run[key] for key in expected} == expected
    times = [run[key] for key in ("submitted_at", "started_at", "finished_at")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each) for each in times)
    assert times == sorted(times)
    submitted = datetime.fromisoformat(times[0].replace("Z", "+00:00"))
    assert abs((submitted - before).total_seconds()) < 120


def test_the_table_fits_a_terminal_and_is_complete_when_piped(
    dstack: Dstack, run_task: RunTask
) -> None:
    long = "echo " + "x" * 80 + "; exit 3"
    name = "a-rather-long-name-for-a-run-of-41-letter"
    assert run_task(f"commands: ['{long}']", "-n", name).returncode == 3
    assert long in dstack.ok("ps")
    terminal = pexpect.spawn(
        dstack.binary, ["ps"], env={**dstack.env(), "TERM": "xterm"}, dimensions=(24, 80),
        encoding="utf-8", timeout=30, cwd=dstack.cwd,
    )  # fmt: skip
    terminal.expect(pexpect.EOF)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.before or "").splitlines()
    assert len(shown) == 2
    assert all(len(line) <= 80 for line in shown)
    assert shown[1].startswith(name)


def test_ps_w_keeps_watching(dstack: Dstack, task: Task) -> None:
    dstack.ok("run", task(FOREVER), "-n", "seen", "-d")
    terminal = pexpect.spawn(
        dstack.binary, ["ps", "-w"], env={**dstack.env(), "TERM": "xterm"}, encoding="utf-8",
        timeout=60, cwd=dstack.cwd,
    )  # fmt: skip
    terminal.expect("seen +running")
    dstack.ok("stop", "seen", "-x")
    terminal.expect("seen +stopped")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus in {0, 130}


BYTES = rb"a\0b\377\r50%%\r100%%\n\033[1mbold\033[0m\nno end"


def test_logs_are_byte_for_byte(dstack: Dstack, task: Task) -> None:
    folder = task("name: bytes\ncommands:\n  - printf '" + BYTES.decode() + "'")
    expected = b"a\0b\xff\r50%\r100%\n\x1b[1mbold\x1b[0m\nno end"
    assert dstack.raw("run", folder).stdout == expected
    assert dstack.raw("logs", "bytes").stdout == expected
    assert dstack.raw("logs", "bytes", "-f").stdout == expected
    assert dstack.raw("attach", "bytes").stdout == expected
    assert dstack.raw("logs", "bytes", "--tail", "1").stdout == b"no end"
    assert dstack.raw("logs", "bytes", "--tail", "2").stdout == b"\x1b[1mbold\x1b[0m\nno end"
    assert dstack.raw("logs", "bytes", "--tail", "0").stdout == b""
    assert dstack.raw("logs", "bytes", "--since", "1h").stdout == expected
    assert dstack.raw("logs", "bytes", "--since", "2999-01-01T00:00:00Z").stdout == b""
    stamped = dstack.raw("logs", "bytes", "-t").stdout
    stamp = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
    assert len(re.findall(rb"^" + stamp, stamped, re.MULTILINE)) == 3
    assert re.sub(rb"(?m)^" + stamp, b"", stamped) == expected


def test_logs_follow_until_the_end(dstack: Dstack, task: Task) -> None:
    folder = task("""
        name: followed
        commands:
          - echo begun
          - while [ ! -e go ]; do sleep 0.05; done
          - echo ended; exit 4
        """)
    dstack.ok("run", folder, "-d")
    following = dstack.start("logs", "followed", "-f")
    assert following.stdout is not None
    assert following.stdout.readline() == b"begun\n"
    assert following.poll() is None
    (code,) = dstack.home.glob("runs/*/code")
    (code / "go").touch()
    out, _ = following.communicate(timeout=60)
    assert (following.returncode, out) == (0, b"ended\n")


def test_attach_replays_everything_and_ends_with_the_run(
    dstack: Dstack, task: Task, printed: Printed
) -> None:
    folder = task("""
        name: back
        commands:
          - echo begun
          - while [ ! -e go ]; do sleep 0.05; done
          - echo ended; exit 4
        """)
    dstack.ok("run", folder, "-d")
    printed("back", "begun")
    attached = dstack.start("attach", "back")
    assert attached.stdout is not None
    assert attached.stdout.readline() == b"begun\n"
    (code,) = dstack.home.glob("runs/*/code")
    (code / "go").touch()
    out, _ = attached.communicate(timeout=60)
    assert (attached.returncode, out) == (4, b"ended\n")


def test_stop_ends_everything_with_sigterm_first(
    dstack: Dstack, task: Task, printed: Printed
) -> None:
    folder = task("""
        name: polite
        commands:
          - setsid sleep 1000 &
          - trap 'echo goodbye; exit 0' TERM
          - echo begun
          - while true; do sleep 0.1; done
        """)
    dstack.ok("run", folder, "-d")
    printed("polite", "begun")
    done = dstack("stop", "polite")
    assert (done.returncode, done.stdout) == (0, "")
    assert "polite was stopped" in done.stderr
    # bash may say that its `sleep` was terminated, too.
    assert dstack.ok("logs", "polite").splitlines()[-1] == "goodbye"
    run = dstack.run_of("polite")
    assert (run["status"], run["reason"]) == ("stopped", "stopped")
    again = dstack("stop", "polite")
    assert (again.returncode, again.stdout) == (0, "")
    assert "ended already" in again.stderr


def test_a_stop_that_takes_long_says_what_it_waits_for(
    dstack: Dstack, task: Task, printed: Printed
) -> None:
    folder = task("commands: [trap '' TERM, echo begun, 'for i in {1..50}; do sleep 0.1; done']")
    dstack.ok("run", folder, "-n", "slow", "-d")
    printed("slow", "begun")
    done = dstack("stop", "slow")
    assert done.returncode == 0
    assert done.stderr.count("waiting for slow to end") == 1


def test_stop_x_does_not_wait(dstack: Dstack, task: Task, printed: Printed) -> None:
    folder = task(
        "name: stubborn\ncommands: [trap '' TERM, echo begun, 'while :; do sleep 1; done']"
    )
    dstack.ok("run", folder, "-d")
    printed("stubborn", "begun")
    dstack.ok("stop", "-x", "stubborn")
    assert dstack.run_of("stubborn")["signal"] == signal.SIGKILL
    assert not [each for each in dstack.leftovers() if "job.sh" in each or "sleep" in each]


def test_stop_all(dstack: Dstack, task: Task) -> None:
    folder = task(FOREVER)
    for name in ("one", "two"):
        dstack.ok("run", folder, "-n", name, "-d")
    dstack.ok("stop", "-a", "-x")
    assert [run["status"] for run in dstack.ps("-a")] == ["stopped", "stopped"]


def test_of_several_none_is_stopped_or_deleted_when_one_is_not_there(
    dstack: Dstack, task: Task
) -> None:
    dstack.ok("run", task(FOREVER), "-n", "busy", "-d")
    for command, undone in (("stop", "stopped"), ("rm", "deleted")):
        done = dstack(command, "busy", "nobody")
        assert done.returncode == 2
        assert f"there is no run called nobody; none was {undone}" in done.stderr
    assert dstack.run_of("busy")["status"] in ("preparing", "running")
    dstack.ok("stop", "-x", "busy")


def test_restart_finds_the_files_of_the_attempt_before(dstack: Dstack, task: Task) -> None:
    folder = task("""
        name: again
        setup: [echo setting up, 'python -m venv --help > /dev/null && touch made-by-setup']
        commands:
          - ls made-by-setup
          - cat state 2> /dev/null || echo fresh
          - echo "left by $DSTACK_ATTEMPT" > state
          - test "$DSTACK_ATTEMPT" != 1
        """)
    first = dstack("run", folder)
    assert (first.returncode, first.stdout) == (1, "setting up\nmade-by-setup\nfresh\n")
    (folder / ".dstack.yml").write_text("type: task\ncommands: [echo edited]\n")
    assert dstack.ok("restart", "again") == "made-by-setup\nleft by 1\n"
    assert dstack.ok("restart", "again", "-d") == "again\n"
    dstack.wait_status("again", "done")
    assert dstack.ok("logs", "again").endswith("left by 2\n")


def test_restart_waits_for_who_has_just_seen_the_end(dstack: Dstack, task: Task) -> None:
    dstack.ok("run", task("commands: [echo hi]"), "-n", "again")
    leases = Leases(Home(dstack.home))
    assert leases.take(1)
    restarting = dstack.start("restart", "again")
    time.sleep(1)
    leases.drop(1)
    out, err = restarting.communicate(timeout=60)
    assert (restarting.returncode, out) == (0, b"hi\n"), err


def test_an_active_run_is_neither_restarted_nor_removed(
    dstack: Dstack, task: Task, printed: Printed
) -> None:
    dstack.ok("run", task(FOREVER), "-n", "busy", "-d")
    printed("busy", "begun")
    for command in ("restart", "rm"):
        done = dstack(command, "busy")
        assert done.returncode == 2
        assert "dstack stop busy" in done.stderr
    assert dstack.run_of("busy")["status"] == "running"


def test_rm_forgets_the_run_and_deletes_its_folder(dstack: Dstack, task: Task) -> None:
    folder = task("commands: [echo hi]")
    for name in ("one", "two", "three"):
        dstack.ok("run", folder, "-n", name)
    dstack.ok("rm", "one")
    assert [run["name"] for run in dstack.ps("-a")] == ["three", "two"]
    assert len(list(dstack.home.glob("runs/*"))) == 2
    assert dstack("logs", "one").returncode == 2
    dstack.ok("rm", "-a")
    assert dstack.ps("-a") == []
    assert not list(dstack.home.glob("runs/*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_terminal_signals_stop_the_run(
    dstack: Dstack, task: Task, number: signal.Signals
) -> None:
    running = dstack.start("run", task(FOREVER), "-n", "signalled")
    assert running.stdout is not None
    assert running.stdout.readline() == b"begun\n"
    running.send_signal(number)
    out, _ = running.communicate(timeout=60)
    assert (running.returncode, out) == (128 + number, b"")
    assert dstack.run_of("signalled")["status"] == "stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_right_at_the_start_leaves_no_run(
    dstack: Dstack, task: Task, number: signal.Signals
) -> None:
    starting = dstack.start("run", task(FOREVER), "-n", "early")
    assert starting.stderr is not None
    assert starting.stderr.readline().startswith(b"early: local")
    starting.send_signal(number)
    starting.communicate(timeout=60)
    assert starting.returncode == 128 + number
    run = dstack.run_of("early")
    assert (run["status"], run["exit_code"]) == ("stopped", 128 + number)


def test_a_killed_command_loses_nothing(dstack: Dstack, task: Task) -> None:
    folder = task("""
        name: orphan
        commands:
          - echo begun
          - while [ ! -e go ]; do sleep 0.05; done
          - echo ended; exit 6
        """)
    running = dstack.start("run", folder)
    assert running.stdout is not None
    assert running.stdout.readline() == b"begun\n"
    running.kill()
    running.communicate()
    assert dstack.run_of("orphan")["status"] == "running"
    (code,) = dstack.home.glob("runs/*/code")
    (code / "go").touch()
    run = dstack.wait_status("orphan", "failed")
    assert run["exit_code"] == 6
    assert dstack.ok("logs", "orphan") == "begun\nended\n"


def test_nothing_goes_on_when_nothing_is_active(dstack: Dstack, task: Task) -> None:
    name = dstack.ok("run", task("commands: [echo hi]"), "-d").strip()
    dstack.wait_status(name, "done")
    wait_for(lambda: not dstack.leftovers(), "the background supervisor to end")


def test_dstack_inside_a_run_means_the_same_runs(dstack: Dstack, task: Task) -> None:
    inner = task("name: inner\ncommands: [echo from within]", name="inner")
    outer = task(f"name: outer\ncommands: ['{dstack.binary} run {inner}']", name="outer")
    assert "from within" in dstack.ok("run", outer).splitlines()
    assert {run["name"] for run in dstack.ps("-a")} == {"inner", "outer"}


def test_completion_lists_run_names(dstack: Dstack, task: Task) -> None:
    dstack.ok("run", task("commands: [echo hi]"), "-n", "finished")
    script = (
        dstack.ok("completion", "bash")
        + """
COMP_WORDS=(dstack logs fin) COMP_CWORD=2 COMP_LINE="dstack logs fin" COMP_POINT=15
_dstack
echo "${COMPREPLY[@]}"
"""
    )
    env = dstack.env({"PATH": f"{dstack.binary.rpartition('/')[0]}:/usr/bin:/bin"})
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["finished"], done.stderr
