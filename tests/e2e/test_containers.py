"""Tasks with an image, as a user has them: the installed command on real Docker and Podman."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Task, free_port, is_open
from tests.engines.engine import Engine
from tests.engines.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.engines.fixtures import RegistryAddress
from tests.engines.services import Services
from tests.support import Dstack, wait_for

ROOT = Path(__file__).parents[2]
Printed = Callable[[str, str], str]
OPEN = "0.0.0.0"


@pytest.fixture
def on(engine: Engine, dstack: Dstack) -> Engine:
    """The engine, which the machine's backend is set to."""
    (dstack.home / "config.yml").write_text(
        f"backends: [{{name: local, type: local, engine: {engine.name}, "
        f"base_image: {engine.image('python')}}}]\n"
    )
    return engine


def fetch(port: int) -> str:
    def answer() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/page.txt", timeout=10) as reply:
                text: str = reply.read().decode()
                return text
        except OSError:
            return ""

    return wait_for(answer, f"port {port} to answer")


def test_a_task_with_an_image(dstack: Dstack, task: Task, on: Engine) -> None:
    folder = task(
        f"image: {on.image('python')}\ncommands: [cat page.txt, exit 3]",
        files={"page.txt": "hello\n"},
    )
    done = dstack("run", folder, "-n", "boxed")
    assert (done.returncode, done.stdout) == (3, "hello\n")
    assert on.image("python") in done.stderr.splitlines()[0]
    assert "command 2 of 2 exited with code 3: exit 3" in done.stderr
    run = dstack.run_of("boxed")
    assert (run["image"], run["engine"]) == (on.image("python"), on.name)
    known = on.cli("image", "inspect", "--format", "{{.Id}} {{.RepoDigests}}", on.image("python"))
    assert str(run["image_id"]).rpartition(":")[2] in known
    assert run["image_id"] in dstack.ok("ps", "-v", "boxed")


def test_detached_logs_stop_restart_and_rm(
    dstack: Dstack, task: Task, on: Engine, printed: Printed
) -> None:
    folder = task(
        f"image: {on.image('busybox')}\n"
        "commands: ['echo $DSTACK_ATTEMPT >>kept; cat kept; echo begun; while :; do sleep 1; done']"
    )
    assert dstack.ok("run", folder, "-n", "boxed", "-d") == "boxed\n"
    printed("boxed", "begun")
    assert dstack.run_of("boxed")["status"] == "running"
    assert len(on.containers()) == 1
    dstack.ok("stop", "boxed")
    assert dstack.run_of("boxed")["status"] == "stopped"
    assert on.containers() == []
    again = dstack.start("restart", "boxed")
    wait_for(lambda: "1\n2\n" in dstack.ok("logs", "boxed"), "the second attempt")
    dstack.ok("stop", "-x", "boxed")
    again.communicate(timeout=60)
    assert again.returncode == 137
    dstack.ok("rm", "boxed")
    assert list((dstack.home / "runs").iterdir()) == []


def test_ports(dstack: Dstack, task: Task, on: Engine) -> None:
    inside, local, other = 8000, free_port(), free_port()
    text = (
        f"image: {on.image('python')}\nports: [{inside}]\n"
        f"commands: ['python -u -m http.server --bind {OPEN} {inside}']"
    )
    folder = task(text, files={"page.txt": "one"})
    second = task(text, files={"page.txt": "two"}, name="other")
    running = [
        dstack.start("run", folder, "-n", "a", "-p", f"{local}:{inside}"),
        dstack.start("run", second, "-n", "b", "-p", f"{other}:{inside}"),
    ]
    assert (fetch(local), fetch(other)) == ("one", "two")
    assert dstack.run_of("a")["ports"] == [{"run": inside, "local": local}]
    dstack.ok("stop", "-x", "a", "b")
    shown = [process.communicate(timeout=60)[0].decode() for process in running]
    assert f"http://127.0.0.1:{local}" in shown[0] or f"http://localhost:{local}" in shown[0]
    assert not is_open(local)
    # The next attempt is another container, with another address.
    again = dstack.start("restart", "a")
    assert fetch(local) == "one"
    dstack.ok("stop", "-x", "a")
    again.communicate(timeout=60)


def test_secrets_are_masked_and_reach_the_container(dstack: Dstack, task: Task, on: Engine) -> None:
    dstack.ok("secrets", "set", "TOKEN", "s3cr3t")
    folder = task(
        f"image: {on.image('busybox')}\nenv: ['T=${{{{ secrets.TOKEN }}}}']\n"
        "commands: ['echo $T; echo ${#T}']"
    )
    assert dstack.ok("run", folder) == "***\n6\n"


def test_without_an_image_the_base_image_runs(dstack: Dstack, task: Task, on: Engine) -> None:
    folder = task("commands: ['echo $FROM_IMAGE; pwd']")
    done = dstack("run", folder, "-n", "based")
    assert (done.returncode, done.stdout) == (0, "a value\n/workflow\n")
    assert dstack.run_of("based")["image"] == on.image("python")


def test_a_dry_run_prints_both_scripts(dstack: Dstack, task: Task, on: Engine) -> None:
    folder = task(f"image: {on.image('busybox')}\ncommands: [echo never]")
    shown = dstack.ok("run", folder, "--dry-run")
    assert "job_container() {" in shown
    assert "eval 'echo never'" in shown
    assert on.containers() == []


def test_ctrl_c_stops_the_container(dstack: Dstack, task: Task, on: Engine) -> None:
    folder = task(f"image: {on.image('busybox')}\ncommands: ['echo begun; sleep 1000']")
    running = dstack.start("run", folder, "-n", "boxed")
    assert running.stdout is not None
    assert running.stdout.readline() == b"begun\n"
    running.send_signal(2)
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert dstack.run_of("boxed")["status"] == "stopped"


def test_a_gpu_that_is_not_there_is_refused(dstack: Dstack, task: Task, on: Engine) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has GPUs")
    folder = task(f"image: {on.image('busybox')}\nresources: {{gpu: 1}}\ncommands: [echo never]")
    done = dstack("run", folder)
    assert (done.returncode, done.stdout) == (125, "")
    assert "no GPU" in done.stderr
    assert on.containers() == []


def test_a_private_image(
    dstack: Dstack, task: Task, on: Engine, private_registry: RegistryAddress
) -> None:
    image = private_registry.image("busybox")
    on.run("rmi", "--force", image)
    auth = "registry_auth: {username: %s, password: '${{ secrets.PW }}'}"
    folder = task(f"image: {image}\n{auth % private_registry.username}\ncommands: [echo pulled]")
    done = dstack("run", folder)
    assert done.returncode == 2
    assert "PW" in done.stderr
    dstack.ok("secrets", "set", "PW", "wrong")
    done = dstack("run", folder)
    assert done.returncode == 125
    assert "refused the username or password of registry_auth" in done.stderr
    dstack.ok("secrets", "set", "PW", str(private_registry.password))
    done = dstack("run", folder, "-n", "pulled")
    assert (done.returncode, done.stdout) == (0, "pulled\n")
    assert f"{image.removesuffix(':latest')}@sha256:" in dstack.ok("ps", "-v", "pulled")
    on.cli("rmi", "--force", image)


def test_pulling_is_drawn_on_a_terminal_and_ends_with_the_run(
    dstack: Dstack, task: Task, on: Engine
) -> None:
    # A registry that takes the connection and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/slow:1"
        folder = task(f"image: {image}\ncommands: [echo never]")
        master, slave = pty.openpty()
        running = dstack.start("run", folder, "-n", "slow", stderr=slave, env={"TERM": "xterm"})
        os.close(slave)
        seen = b""
        while f"pulling {image}".encode() not in seen:
            # It fails when the command has ended, and nobody can write there any more.
            seen += os.read(master, 65536)
        assert dstack.run_of("slow")["status"] == "preparing"
        dstack.ok("stop", "slow")
        out, _ = running.communicate(timeout=60)
        os.close(master)
    assert (running.returncode, out) == (143, b"")
    assert on.containers() == []


def test_the_example(dstack: Dstack, on: Engine, tmp_path: Path) -> None:
    # As it is, but for the image: nothing is fetched from the world here.
    folder = tmp_path / "container"
    shutil.copytree(ROOT / "examples/container", folder)
    file = folder / ".dstack.yml"
    text = file.read_text()
    assert "image: python:3.11-slim\n" in text
    file.write_text(text.replace("python:3.11-slim", on.image("python")))
    out = dstack.ok("run", folder, "1000")
    assert out.endswith(" on Linux\n168 primes below 1000\n")


def test_the_example_of_a_private_image(
    dstack: Dstack, on: Engine, private_registry: RegistryAddress
) -> None:
    image = private_registry.image("busybox")
    on.run("rmi", "--force", image)
    command = ("run", ROOT / "examples/private-image", "-n", "private")
    done = dstack(*command, image)
    assert done.returncode == 2
    assert "REGISTRY_USERNAME" in done.stderr
    assert "REGISTRY_PASSWORD" in done.stderr
    # As its README says, from a terminal or not.
    dstack.ok("secrets", "set", "REGISTRY_USERNAME", input=f"{private_registry.username}\n")
    dstack.ok("secrets", "set", "REGISTRY_PASSWORD", input=f"{private_registry.password}\n")
    assert dstack.ok(*command, image) == "private runs in an image that not everybody may pull\n"
    on.cli("rmi", "--force", image)


# Which engine


def test_without_an_engine_it_says_what_to_install(
    dstack: Dstack, task: Task, tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("git", "sh"):
        (tools / name).symlink_to(shutil.which(name) or "")
    folder = task("image: busybox\ncommands: [echo never]")
    done = dstack("run", folder, env={"PATH": str(tools)})
    assert (done.returncode, done.stdout) == (125, "")
    assert "neither Docker nor Podman" in done.stderr
    assert "install Docker (https://" in done.stderr


def test_podman_stands_in_for_a_docker_that_does_not_answer(
    dstack: Dstack, task: Task, services: Services
) -> None:
    podman = services.engines["podman"]
    folder = task(f"image: {podman.image('busybox')}\ncommands: [echo hi]")
    done = dstack(
        "run", folder, "-n", "boxed", env={**podman.env, "DOCKER_HOST": "unix:///nowhere"}
    )
    assert (done.returncode, done.stdout) == (0, "hi\n")
    assert dstack.run_of("boxed")["engine"] == "podman"


def test_a_backend_for_processes_refuses_an_image(dstack: Dstack, task: Task) -> None:
    (dstack.home / "config.yml").write_text(
        "backends: [{name: bare, type: local, engine: process}]"
    )
    done = dstack("run", task("image: busybox\ncommands: [echo never]"))
    assert done.returncode == 125
    assert "`image` needs a container, and the run is a process of bare" in done.stderr


def test_a_run_stays_with_its_engine(
    dstack: Dstack, task: Task, services: Services, printed: Printed
) -> None:
    docker = services.engines["docker"]
    folder = task(f"image: {docker.image('busybox')}\ncommands: ['echo begun; sleep 1000']")
    dstack.ok("run", folder, "-n", "boxed", "-d", env=docker.env)
    printed("boxed", "begun")
    # From a shell that knows nothing of that daemon.
    assert dstack.run_of("boxed")["status"] == "running"
    dstack.ok("stop", "-x", "boxed")
    assert dstack.run_of("boxed")["status"] == "stopped"
