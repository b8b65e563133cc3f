"""Started exactly once, and the truth about a keeper that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dstack.errors import CannotStart
from dstack.paths import Home
from dstack.run.observation import Absent, Exited, Running

from .conftest import SHELLS, Bench, WithoutCgroups, finish, gone, twin, wait_for


def test_two_starts_at_once_run_it_once(bench: Bench) -> None:
    run = bench.run("echo x >>count; until [ -e go ]; do sleep 0.02; done")
    job = bench.engine.plan(run, bench.home.run(run.id), 1)
    directory = Path(job.directory)
    engines = [twin(bench.engine) for _ in range(6)]
    threads = [threading.Thread(target=engine.start, args=(job, {})) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.host.close()
    keeper = bench.running(directory)
    assert bench.engine.start(job, {}) == keeper
    (directory.parent / "code" / "go").touch()
    assert bench.ended(directory).code == 0
    assert bench.engine.start(job, {}) == keeper
    assert (directory.parent / "code" / "count").read_text() == "x\n"
    wait_for(lambda: not list(directory.glob("*.new")), "nothing that is written aside")


def test_keepers_by_hand_run_it_once(bench: Bench) -> None:
    directory = bench.start("echo x >>count; until [ -e go ]; do sleep 0.02; done")
    bench.running(directory)
    for _ in range(3):
        again = subprocess.run([*bench.engine.shell, str(directory / "job.sh")], check=False)
        assert again.returncode == 0
    (directory.parent / "code" / "go").touch()
    assert bench.ended(directory).code == 0
    assert (directory.parent / "code" / "count").read_text() == "x\n"


def test_never_started_is_absent(quick: Bench) -> None:
    run = quick.run("true")
    job = quick.engine.plan(run, quick.home.run(run.id), 1)
    directory = Path(job.directory)
    assert quick.poll(directory) == Absent(folder=False)
    directory.mkdir()
    (directory / "job.sh").write_text(job.script)
    assert quick.poll(directory) == Absent(folder=True)
    quick.engine.start(job, {})
    assert quick.ended(directory).reason == "completed"


@pytest.mark.parametrize("hidden", ["", "setsid", "env -i"])
def test_a_killed_keeper(bench: Bench, hidden: str) -> None:
    directory = bench.start(
        f"{hidden} /bin/sh -c 'echo $$ >child; exec /bin/sleep 1000'", max_duration=100_000
    )
    child = bench.number(directory.parent / "code" / "child")
    keeper = bench.running(directory)
    os.kill(keeper, signal.SIGKILL)
    done = bench.ended(directory)
    assert (done.code, done.signal, done.reason) == (137, 9, "killed")
    assert (done.stage, done.index) == ("commands", 1)
    assert done.detail
    assert gone(child)
    assert bench.ended(directory) == done
    assert (directory / "exit").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_killed_keeper_where_nothing_but_output_leads_to_a_process(
    shell: str, home: Home
) -> None:
    bench = Bench(WithoutCgroups(home, shell=SHELLS[shell]))
    directory = bench.start(
        "(env -i setsid /bin/sh -c 'echo $$ >child; exec /bin/sleep 1000' &)",
        "sleep 1000",
    )
    child = bench.number(directory.parent / "code" / "child")
    os.kill(bench.running(directory), signal.SIGKILL)
    assert bench.ended(directory).reason == "killed"
    assert gone(child)
    finish(bench)


def test_a_keeper_killed_in_setup_and_while_stopping(bench: Bench) -> None:
    bench.engine.grace = 1000
    directory = bench.start(
        "true", setup=("trap '' TERM; echo $$ >deaf; while :; do sleep 0.1; done",)
    )
    deaf = bench.number(directory.parent / "code" / "deaf")
    bench.engine.stop(directory, kill=False)
    keeper = int(os.readlink(directory / "pid").split(":")[0])
    os.kill(keeper, signal.SIGKILL)
    done = bench.ended(directory)
    assert (done.reason, done.stage) == ("stopped", "setup")
    assert gone(deaf)


def test_a_keeper_killed_at_any_moment(quick: Bench) -> None:
    """The job ran to its end, or it is said to be killed; never both, and nothing is left."""
    import random
    import time

    rng = random.Random(7)
    for _ in range(12):
        directory = quick.start("echo begun", "echo done")
        time.sleep(rng.random() * 0.02)
        try:
            keeper = int(os.readlink(directory / "pid").split(":")[0])
            os.kill(keeper, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass
        done = quick.ended(directory)
        assert done.reason in ("killed", "completed")
        assert quick.ended(directory) == done
        if done.reason == "completed":
            assert quick.log(directory) == "begun\ndone\n"


def test_remove_drops_what_a_keeper_left_that_died_after_its_exit(quick: Bench) -> None:
    directory = quick.start("true")
    assert quick.ended(directory).code == 0
    listed = (directory / "cgroups").read_text().split()
    wait_for(lambda: not any(Path(path).exists() for path in listed), "the keeper's own end")
    for path in listed:
        Path(path).mkdir(exist_ok=True)
    quick.engine.remove(directory.parent)
    assert not any(Path(path).exists() for path in listed)
    assert not directory.parent.exists()


def test_another_boot(quick: Bench) -> None:
    run = quick.run("true")
    job = quick.engine.plan(run, quick.home.run(run.id), 1)
    directory = Path(job.directory)
    directory.mkdir()
    (directory / "job.sh").write_text(job.script)
    os.symlink(f"{os.getpid()}:1:another-boot", directory / "pid")
    done = quick.ended(directory)
    assert (done.code, done.reason) == (137, "host_restarted")
    assert not gone(os.getpid())


def test_a_reused_pid_is_not_the_keeper(quick: Bench) -> None:
    run = quick.run("true")
    job = quick.engine.plan(run, quick.home.run(run.id), 1)
    directory = Path(job.directory)
    directory.mkdir()
    (directory / "job.sh").write_text(job.script)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    os.symlink(f"{other.pid}:1:{quick.engine.host.boot_id()}", directory / "pid")
    assert quick.ended(directory).reason == "killed"
    quick.engine.stop(directory, kill=True)
    assert other.poll() is None
    assert other.stdin is not None
    other.communicate(b"\n")
    assert other.returncode == 0


def test_the_folder_is_deleted_while_it_runs(bench: Bench) -> None:
    import shutil

    directory = bench.start("echo $$ >child; until [ -e /nonexistent ]; do sleep 0.05; done")
    child = bench.number(directory.parent / "code" / "child")
    bench.running(directory)
    bench.engine.remove(directory.parent)
    assert not directory.parent.exists()
    wait_for(lambda: gone(child), "the end of the job")
    bench.engine.remove(directory.parent)
    assert bench.poll(directory) == Absent()
    shutil.rmtree(directory.parent, ignore_errors=True)


def test_a_batch(quick: Bench) -> None:
    ends = [quick.start(f"exit {n}") for n in range(5)]
    for n, directory in enumerate(ends):
        assert quick.ended(directory).code == n
    runs = quick.start("until [ -e go ]; do sleep 0.02; done")
    quick.running(runs)
    absent = quick.home.job("nothing", 1)
    seen = quick.engine.poll([*ends, runs, absent])
    assert [type(seen[directory]) for directory in ends] == [Exited] * 5
    assert isinstance(seen[runs], Running)
    assert seen[absent] == Absent()


def test_a_missing_value_and_a_file_in_the_way(quick: Bench) -> None:
    from dstack.config.shapes import EnvVar, Secret

    run = quick.run("true", env=(EnvVar("A", (Secret("KEY"),)),))
    job = quick.engine.plan(run, quick.home.run(run.id), 1)
    assert job.needs == ("secret:KEY",)
    with pytest.raises(CannotStart, match="KEY"):
        quick.engine.start(job, {})
    Path(job.directory).write_text("a file")
    with pytest.raises(CannotStart, match="cannot"):
        quick.engine.start(job, {"secret:KEY": "x"})


def test_a_full_disk_keeps_the_exit(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting takes root")
    try:
        from dstack.engines.process import ProcessEngine
        from dstack.paths import Home

        full = Bench(ProcessEngine(Home(small)))
        directory = full.start("echo go", "seq 1 1000000 || true", "exit 3")
        done = full.ended(directory)
        assert (done.code, done.index) == (3, 3)
        assert full.log(directory).startswith("go\n")
    finally:

        def unmounted() -> bool:
            done = subprocess.run(["umount", str(small)], check=False, capture_output=True)
            return done.returncode == 0

        wait_for(unmounted, "umount")
