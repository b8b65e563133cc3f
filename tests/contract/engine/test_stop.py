"""Stopping reaches everything that a run started, however it hides."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.engines import process, render
from dstack.hosts.base import ProcessId
from dstack.paths import Home
from dstack.run.observation import Exited

from .conftest import SHELLS, Bench, OneShell, WithoutCgroups, finish, gone, wait_for

# A grandchild with a session of its own whose parent is gone, and whose environment is empty.
HIDDEN = (
    "env -i setsid /bin/sh -c '/bin/sh -c \"echo \\$\\$ >{file}; exec /bin/sleep 1000\" & exit' &"
)


@pytest.fixture(params=[*SHELLS, "without-cgroups"])
def any_bench(request: pytest.FixtureRequest, home: Home) -> Iterator[Bench]:
    kind = request.param
    if kind in SHELLS:
        found = Bench(OneShell(home, shell=SHELLS[kind], grace=3))
    else:
        found = Bench(WithoutCgroups(home, shell=SHELLS["dash"], grace=3))
    yield found
    finish(found)


def pids(bench: Bench, directory: Path, *names: str) -> list[int]:
    code = directory.parent / "code"
    return [bench.number(code / name) for name in names]


def test_stop_ends_everything(any_bench: Bench) -> None:
    bench = any_bench
    directory = bench.start(
        "sleep 1000 & echo $! >plain",
        "setsid sh -c 'echo $$ >session; exec sleep 1000' &",
        HIDDEN.format(file="hidden"),
        "echo $$ >shell; sleep 1000",
    )
    found = pids(bench, directory, "plain", "session", "hidden", "shell")
    bench.engine.stop(directory, kill=False)
    done = bench.ended(directory)
    assert (done.reason, done.code, done.signal) == ("stopped", 143, 15)
    assert (done.stage, done.index) == ("commands", 4)
    wait_for(lambda: all(gone(pid) for pid in found), "the end of everything")


def test_what_is_left_at_the_end_is_ended(any_bench: Bench) -> None:
    bench = any_bench
    directory = bench.start(
        HIDDEN.format(file="hidden"),
        "setsid sh -c 'trap \"\" TERM; echo $$ >deaf; while :; do sleep 1; done' &",
        "until [ -s hidden ] && [ -s deaf ]; do sleep 0.01; done; exit 5",
    )
    done = bench.ended(directory)
    assert (done.code, done.reason) == (5, "command_failed")
    assert all(gone(pid) for pid in pids(bench, directory, "hidden", "deaf"))


def test_the_deaf_are_killed_after_the_grace(bench: Bench) -> None:
    bench.engine.grace = 1
    directory = bench.start("trap '' TERM; echo $$ >deaf; while :; do sleep 0.1; done")
    (deaf,) = pids(bench, directory, "deaf")
    bench.engine.stop(directory, kill=False)
    done = bench.ended(directory)
    assert (done.code, done.signal, done.reason) == (137, 9, "stopped")
    assert gone(deaf)


def test_a_program_may_end_well_when_stopped(bench: Bench) -> None:
    directory = bench.start(
        "trap 'echo saving; exit 0' TERM; echo $$ >ready; while :; do sleep 0.1; done"
    )
    pids(bench, directory, "ready")
    for _ in range(3):
        bench.engine.stop(directory, kill=False)
    done = bench.ended(directory)
    assert (done.code, done.reason) == (0, "stopped")
    # bash may say "Terminated" of the sleep.
    assert bench.log(directory).endswith("saving\n")


def test_kill_does_not_wait_for_a_stop_under_way(bench: Bench) -> None:
    bench.engine.grace = 1000
    directory = bench.start("trap '' TERM; echo $$ >deaf; while :; do sleep 0.1; done")
    pids(bench, directory, "deaf")
    bench.engine.stop(directory, kill=False)
    bench.engine.stop(directory, kill=True)
    bench.engine.stop(directory, kill=False)
    assert bench.ended(directory).signal == 9


def test_a_stopped_process_hears_too(quick: Bench) -> None:
    directory = quick.start("sh -c 'echo $$ >halted; kill -STOP $$; sleep 1000'")
    (halted,) = pids(quick, directory, "halted")
    quick.engine.stop(directory, kill=False)
    assert quick.ended(directory).reason == "stopped"
    assert gone(halted)


def test_stop_during_setup_and_before_the_start(bench: Bench) -> None:
    directory = bench.start("echo never", setup=("echo $$ >ready", "sleep 1000"))
    pids(bench, directory, "ready")
    bench.engine.stop(directory, kill=False)
    done = bench.ended(directory)
    assert (done.reason, done.stage) == ("stopped", "setup")
    assert "never" not in bench.log(directory)
    bench.engine.stop(directory, kill=True)
    assert bench.ended(directory) == done
    bench.engine.stop(directory.parent / "7", kill=True)
    assert not (directory.parent / "7").exists()


def test_other_signals_do_not_end_the_keeper(bench: Bench) -> None:
    directory = bench.start("echo $$ >ready; until [ -e go ]; do sleep 0.02; done; exit 6")
    pids(bench, directory, "ready")
    keeper = bench.running(directory)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        os.kill(keeper, number)
    (directory.parent / "code" / "go").touch()
    done = bench.ended(directory)
    assert (done.code, done.reason) == (6, "command_failed")


def test_commands_do_not_inherit_ignored_signals(bench: Bench) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done, log = bench.do("grep SigIgn /proc/self/status")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 0
    # Bits of SIGHUP, SIGPIPE, SIGTERM, SIGUSR1, SIGCHLD; SIGINT and SIGQUIT are for the shell.
    ignored = int(log.split()[1], 16)
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        assert not ignored >> (number - 1) & 1, number


def test_max_duration(bench: Bench) -> None:
    bench.engine.grace = 1
    done, _ = bench.do("sleep 1000", max_duration=1)
    assert (done.code, done.reason) == (124, "max_duration")


def test_the_timer_goes_with_the_job(bench: Bench) -> None:
    done, _ = bench.do("true", max_duration=100_000)
    assert done.reason == "completed"


@pytest.mark.parametrize("cgroups", [render.CGROUPS, "/none"])
def test_watch_tells_of_the_end(
    bench: Bench, cgroups: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "CGROUPS", cgroups)
    directory = bench.start("until [ -e go ]; do sleep 0.02; done", max_duration=100_000)
    bench.running(directory)
    host = bench.engine.host
    keeper = ProcessId.parse(os.readlink(directory / "pid"))
    watch = host.watch([keeper])
    assert not watch.ended()
    (directory.parent / "code" / "go").touch()
    while not (ended := watch.ended()):
        assert select.select([watch.fileno()], [], [], 60)[0]
    assert ended == {keeper}
    watch.close()
    # Not before: whoever is told looks, and finds how it ended. What waits for the keeper on
    # another machine bears the job's mark, and is none of what the job left.
    assert isinstance(bench.poll(directory), Exited)
    assert not host.signal(keeper, signal.SIGTERM)


def test_the_keeper_says_nothing_of_a_killed_job_in_its_output(any_bench: Bench) -> None:
    directory = any_bench.start("echo $$ >shell; echo here; exec sleep 1000")
    shell = any_bench.number(directory.parent / "code" / "shell")
    wait_for(lambda: any_bench.log(directory), "its output")
    os.kill(shell, signal.SIGKILL)
    assert any_bench.ended(directory).signal == signal.SIGKILL
    assert any_bench.log(directory) == "here\n"


# The list of children is read while the parent lives, and what that has become only when it has
# left another one behind: `read` waits in between.
_LATE = """
. "$1"
(sleep 0.2; sleep 1000 >/dev/null 2>&1 & echo $! >"$2") &
slow=yes
read() { command read "$@"; [ -z "$slow" ] || { slow=; sleep 0.6; }; }
await_children && echo "one lives" || echo "none lives"
"""


@pytest.mark.parametrize("shell", ["dash", "busybox"])
def test_what_is_left_to_the_keeper_while_it_looks(shell: str, tmp_path: Path) -> None:
    script = Path(process.__file__).with_name("process.sh")
    argv = [*SHELLS[shell], "-c", _LATE, "sh", str(script), str(tmp_path / "left")]
    done = subprocess.run(
        argv, preexec_fn=adopt_orphans, capture_output=True, text=True, check=True
    )
    os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)
    assert done.stdout == "one lives\n", done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_parents_are_told_to_end_before_their_children(shell: str) -> None:
    # Else a shell may say "Terminated" of what it waits for, in the output.
    script = Path(process.__file__).with_name("process.sh")
    argv = [*SHELLS[shell], "-c", '. "$1"; processes; echo "$table"', "sh", str(script)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    pids = [int(line.split()[0]) for line in done.stdout.split("\n") if line]
    assert len({len(str(pid)) for pid in pids}) > 1
    assert pids == sorted(pids)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ["$(>made)\n", '"$(>made)\n', "a) b) Z 1\n", "`>made`"])
def test_what_other_processes_are_called_is_no_command(
    shell: str, name: str, tmp_path: Path
) -> None:
    script = Path(process.__file__).with_name("process.sh")
    argv = [*SHELLS[shell], "-c", '. "$1"; processes; echo "$table"', "sh", str(script)]
    called = [sys.executable, "-c", _CALLED, name]
    with subprocess.Popen(called, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"called\n"
        done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path)
        other.terminate()
    assert f"{other.pid} {os.getpid()} {os.getsid(0)} S" in done.stdout.splitlines()
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


# PR_SET_NAME of prctl(2).
_CALLED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
print("called", flush=True)
input()
"""


def adopt_orphans() -> None:
    """As a keeper does: PR_SET_CHILD_SUBREAPER of prctl(2)."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
