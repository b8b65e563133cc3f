"""Docker's daemon stops, comes back, or is not there: what is not known is not finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dstack.paths import Home
from dstack.run.observation import Exited, Running, Unknown
from tests.contract.engine.conftest import Bench, finish, in_containers, wait_for
from tests.engines.daemon import Daemon
from tests.engines.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.engines.services import Services

Start = Callable[..., Daemon]


@pytest.fixture
def bench_on(
    docker_daemon: Start, services: Services, home: Home, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Daemon], Bench]]:
    """A bench on a daemon of the test's own, which is started before; no keeper outlives it."""
    del docker_daemon
    made: list[Bench] = []

    def make(daemon: Daemon) -> Bench:
        monkeypatch.setenv("DOCKER_HOST", daemon.host)
        source = services.engines["docker"]
        daemon.copy_image(source, "busybox")
        made.append(in_containers(daemon.client(), home, image=source.image("busybox")))
        return made[-1]

    yield make
    for bench in made:
        finish(bench)


def begun(bench: Bench, directory: Path, daemon: Daemon) -> None:
    """It runs, and the daemon knows: what it dies over while starting is lost with it."""
    wait_for(lambda: bench.log(directory), "output")
    wait_for(lambda: daemon.client().containers(all=False), "the daemon to know")


def test_a_daemon_that_is_gone_is_unknown_and_then_the_truth(
    docker_daemon: Start, bench_on: Callable[[Daemon], Bench]
) -> None:
    daemon = docker_daemon("--live-restore")
    bench = bench_on(daemon)
    directory = bench.start("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two; exit 5")
    begun(bench, directory, daemon)
    daemon.kill()
    seen = wait_for(
        lambda: s if isinstance(s := bench.poll(directory), Unknown) else None, "unknown"
    )
    assert seen.why == "Docker does not answer"
    daemon.launch()
    wait_for(lambda: isinstance(bench.poll(directory), Running), "the truth")
    daemon.kill()
    wait_for(lambda: isinstance(bench.poll(directory), Unknown), "unknown again")
    # It goes on meanwhile, and ends while nobody can be asked.
    (directory.parent / "code/go").touch()
    wait_for(lambda: bench.log(directory) == "one\ntwo\n", "the rest of the output")
    assert not isinstance(bench.poll(directory), Exited)
    daemon.launch()
    done = bench.ended(directory)
    assert (done.code, done.reason, done.index) == (5, "command_failed", 1)
    wait_for(lambda: daemon.client().containers() == [], "the container to be gone")


def test_a_daemon_that_is_restarted_ends_its_containers(
    docker_daemon: Start, bench_on: Callable[[Daemon], Bench]
) -> None:
    daemon = docker_daemon()
    bench = bench_on(daemon)
    directory = bench.start("echo one; sleep 1000")
    begun(bench, directory, daemon)
    daemon.kill()
    daemon.launch()
    done = bench.ended(directory)
    # SIGTERM to the commands where the daemon finds the time, else SIGKILL to all.
    assert (done.code, done.reason) in ((143, "command_failed"), (137, "killed"))
    assert daemon.client().containers() == []


def test_a_keeper_killed_while_the_daemon_is_gone(
    docker_daemon: Start, bench_on: Callable[[Daemon], Bench]
) -> None:
    import os
    import signal

    daemon = docker_daemon("--live-restore")
    bench = bench_on(daemon)
    directory = bench.start("echo one; sleep 1000")
    keeper = bench.running(directory)
    begun(bench, directory, daemon)
    daemon.kill()
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: isinstance(bench.poll(directory), Unknown), "unknown")
    daemon.launch()
    assert bench.ended(directory).reason == "killed"
    assert daemon.client().containers() == []


def test_no_daemon_at_the_start(docker_daemon: Start, bench_on: Callable[[Daemon], Bench]) -> None:
    daemon = docker_daemon()
    bench = bench_on(daemon)
    daemon.terminate()
    done, _ = bench.do("echo never")
    assert (done.code, done.reason, done.detail) == (125, "start_failed", "Docker does not answer")
    daemon.launch()


def test_a_full_disk_at_the_pull(
    docker_daemon: Start, services: Services, bench_on: Callable[[Daemon], Bench]
) -> None:
    registry = services.open.address
    daemon = docker_daemon(f"--insecure-registry={registry}", size="24m")
    bench = bench_on(daemon)
    done, _ = bench.do("echo never", image=f"{registry}/dstack-test/python:latest")
    assert (done.code, done.reason) == (125, "start_failed")
    assert "disk of Docker is full" in str(done.detail)
