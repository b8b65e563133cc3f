"""Where a job's port is reached: where its own app listens, and only once it does."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dstack.config.shapes import Port
from dstack.engines import reach
from dstack.engines.base import Reach
from dstack.engines.reach import parse
from dstack.paths import Home
from tests.contract.engine.conftest import Bench, finish, in_containers, wait_for
from tests.engines.engine import Engine

SERVE = """
import socket, sys, time
host, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.create_server((host, int(port)), family=family):
    time.sleep(1000)
"""
NOWHERE = Reach()
Other = Callable[[str, int], None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def other() -> Iterator[Other]:
    """Listen at a host and port, as somebody's program that has nothing to do with a run."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(host: str, port: int) -> None:
        started.append(subprocess.Popen([sys.executable, "-c", SERVE, host, str(port)]))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def listens() -> bool:
            with socket.socket(family) as probe:
                return probe.connect_ex((host, port)) == 0

        wait_for(listens, "the other program to listen")

    yield begin
    for process in started:
        process.kill()
        process.wait()


def serve(host: str, port: int, before: str = "") -> str:
    return f"{before} {sys.executable} -c '{SERVE}' {host} {port}"


@pytest.mark.parametrize(
    ("host", "reached"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::", "::1")],
)
def test_the_jobs_own_app(bench: Bench, host: str, reached: str) -> None:
    port = free_port()
    directory = bench.start(f"until [ -e go ]; do sleep 0.02; done; {serve(host, port)}")
    bench.running(directory)
    assert bench.engine.address(directory, port) == NOWHERE
    (directory.parent / "code" / "go").touch()
    found = wait_for(lambda: bench.engine.address(directory, port).address, "its app")
    assert found == (reached, port)
    bench.engine.stop(directory, kill=True)
    bench.ended(directory)
    assert bench.engine.address(directory, port) == NOWHERE


@pytest.mark.parametrize("before", ["env -i", "exec env -i", "setsid -w env -i"])
def test_one_that_has_cleared_its_environment(bench: Bench, before: str) -> None:
    port = free_port()
    directory = bench.start(serve("127.0.0.1", port, before))
    found = wait_for(lambda: bench.engine.address(directory, port).address, "its app")
    assert found == ("127.0.0.1", port)
    bench.engine.stop(directory, kill=True)
    bench.ended(directory)


def test_somebody_elses_program(bench: Bench, other: Other) -> None:
    port = free_port()
    other("127.0.0.1", port)
    directory = bench.start("sleep 1000")
    bench.running(directory)
    found = bench.engine.address(directory, port)
    assert found.address is None
    name, _, pid = (found.foreign or "").partition(" ")
    assert name.startswith("python")
    assert pid.isdigit()
    bench.engine.stop(directory, kill=True)
    bench.ended(directory)


def test_beside_somebody_elses_program(bench: Bench, other: Other) -> None:
    port = free_port()
    other("127.0.0.1", port)
    directory = bench.start(serve("::1", port))
    found = wait_for(lambda: bench.engine.address(directory, port).address, "its app")
    assert found == ("::1", port)
    bench.engine.stop(directory, kill=True)
    bench.ended(directory)


def test_another_job_of_ours(quick: Bench) -> None:
    port = free_port()
    first = quick.start(serve("127.0.0.1", port))
    wait_for(lambda: quick.engine.address(first, port).address, "its app")
    second = quick.start("sleep 1000")
    quick.running(second)
    assert quick.engine.address(second, port).foreign
    for directory in (first, second):
        quick.engine.stop(directory, kill=True)
        quick.ended(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_users_program() -> None:
    # As seen by one who is not root: no file of the others' processes can be read.
    port = free_port()
    argv = ["/bin/sh", "-c", reach.script(), "sh", "process", f"{port:04X}", "x-1", "/nowhere"]
    with socket.create_server(("127.0.0.1", port)):
        done = subprocess.run(argv, user=4002, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["foreign"], "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("shell", [("dash",), ("busybox", "sh")])
def test_what_the_commands_do_as_another_user(shell: tuple[str, ...]) -> None:
    # As after `sudo`: the job is one user's, who may not look into the process that listens.
    port = free_port()
    serve = shlex.join([sys.executable, "-c", SERVE, "127.0.0.1", str(port)])
    keeper = subprocess.Popen(["/bin/sh", "-c", f"{serve}; :"], start_new_session=True)

    def ask(folder: str) -> str:
        about = ["process", f"{port:04X}", "x-1", folder]
        call = [*shell, "-c", reach.script(), "sh", *about]
        done = subprocess.run(call, user=4002, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.strip()

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        os.symlink(f"{keeper.pid}:1:boot", f"{folder}/pid")
        try:
            assert wait_for(lambda: ask(folder), "its app") == "at 127.0.0.1"
            assert ask("/nowhere") == "foreign"
        finally:
            os.killpg(keeper.pid, signal.SIGKILL)
            keeper.wait()


def test_a_container_that_the_commands_start(quick: Bench, docker: Engine) -> None:
    # Its port belongs to Docker's proxy, which is root's and nobody's child.
    port = free_port()
    name = f"dstack-test-{port}"
    env = [f"{key}={value}" for key, value in docker.env.items()]
    call = ["env", *env, "docker", "run", "--rm", "--name", name, "-p", f"127.0.0.1:{port}:8000"]
    serve = [docker.image("python"), "python", "-m", "http.server", "8000"]
    first = quick.start(shlex.join([*call, *serve]))
    try:
        found = wait_for(lambda: quick.engine.address(first, port).address, "its app")
        assert found == ("127.0.0.1", port)
        # To a run that began later it is somebody else's.
        second = quick.start("sleep 1000")
        quick.running(second)
        assert quick.engine.address(second, port).foreign
        for directory in (first, second):
            quick.engine.stop(directory, kill=True)
            quick.ended(directory)
    finally:
        docker.cli("rm", "--force", name)


def test_what_the_script_says() -> None:
    assert parse("at ::1", 80) == Reach(("::1", 80))
    assert parse("foreign python3 4711", 80) == Reach(foreign="python3 4711")
    assert parse("foreign", 80) == Reach(foreign="")
    assert parse("", 80) == NOWHERE


@pytest.mark.parametrize(
    ("any_bench"), ["docker", "podman", "docker over ssh", "podman over ssh"], indirect=True
)
def test_a_container_in_which_nobody_listens_yet(any_bench: Bench) -> None:
    directory = any_bench.start(
        "until [ -e go ]; do sleep 0.02; done; python -m http.server 8000",
        ports=(Port(8000, None), Port(8001, None)),
    )
    any_bench.running(directory)
    assert any_bench.engine.address(directory, 8000) == NOWHERE
    (directory.parent / "code" / "go").touch()
    address = wait_for(lambda: any_bench.engine.address(directory, 8000).address, "its app")

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(address) == 0

    wait_for(answers, "the way there")  # a network that is new may take a moment
    assert any_bench.engine.address(directory, 8001) == NOWHERE
    any_bench.engine.stop(directory, kill=True)
    any_bench.ended(directory)


def test_a_container_with_the_machines_network(
    podman: Engine,
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other: Other,
) -> None:
    settings = Path(os.environ["CONTAINERS_CONF"]).read_text()
    own = tmp_path / "containers.conf"
    own.write_text(settings.replace("[containers]", '[containers]\nnetns = "host"'))
    monkeypatch.setenv("CONTAINERS_CONF", str(own))
    box = in_containers(podman, home)
    port = free_port()
    wait = "until [ -e go ]; do sleep 0.02; done"
    directory = box.start(
        f"{wait}; python -m http.server {port} --bind ::1", ports=(Port(port, None),)
    )
    box.running(directory)
    assert box.engine.address(directory, port) == NOWHERE
    other("127.0.0.1", port)
    assert (box.engine.address(directory, port).foreign or "").startswith("python")
    (directory.parent / "code" / "go").touch()
    found = wait_for(lambda: box.engine.address(directory, port).address, "its app")
    assert found == ("::1", port)
    box.engine.stop(directory, kill=True)
    box.ended(directory)
    finish(box)
