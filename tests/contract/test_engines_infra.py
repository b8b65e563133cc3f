"""The engines, images and registries that other tests stand on are what those tests think."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distribution import group_of
from tests.engines import machine
from tests.engines.daemon import Daemon
from tests.engines.engine import Engine
from tests.engines.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.engines.fixtures import RegistryAddress
from tests.engines.registry import free_port
from tests.engines.services import Services
from tests.support import wait_for


def test_images_say_who_and_where_they_are(engine: Engine) -> None:
    def said(image: str, *command: str) -> str:
        return engine.cli("run", "--rm", "--network=host", engine.image(image), *command)

    assert said("busybox", "sh", "-c", "command -v bash; id -un") == "root"
    assert said("user", "sh", "-c", "id -u; pwd").split() == ["1000", "/home/app"]
    assert said("entry").splitlines() == [
        "entry: echo the image's own command",
        "the image's own command",
    ]
    assert said("scratch") == "hello from scratch"
    bash = "echo $FROM_BASHRC; python -c 'import ssl, json, http.server, venv'; pip --version"
    lines = said("python", "bash", "-i", "-c", bash).splitlines()
    assert lines[0] == "root"
    assert lines[1].startswith("pip ")


def test_images_without_a_shell_or_for_another_cpu_do_not_run(engine: Engine) -> None:
    shell = engine.run("run", "--rm", "--entrypoint=sh", engine.image("scratch"), "-c", "true")
    assert shell.returncode == 127
    foreign = engine.run("run", "--rm", "--network=host", engine.image("foreign"))
    assert foreign.returncode != 0
    assert "exec format error" in foreign.stdout + foreign.stderr


def test_a_published_port_answers_on_loopback(engine: Engine) -> None:
    port = free_port()
    serve = ["python", "-m", "http.server", "80"]
    engine.cli(
        "run", "-d", "--name=dstack-web", f"-p=127.0.0.1:{port}:80", engine.image("python"), *serve
    )

    def answer() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as reply:
                status: int = reply.status
                return status
        except OSError:
            return 0

    assert wait_for(answer, "the container's server") == 200
    engine.remove("dstack-web")


def test_what_is_left_behind_is_found(engine: Engine) -> None:
    before = engine.snapshot()
    engine.cli("run", "-d", "--name=dstack-left", engine.image("busybox"), "sleep", "300")
    engine.cli("volume", "create", "--label=dstack.run=x", "left")
    engine.cli("network", "create", "dstack-net")
    left = engine.leftovers(before, timeout=0)
    assert {"container dstack-left", "volume left", "network dstack-net"} <= set(left)
    kinds = {line.split()[0] for line in left}
    assert kinds == {"container", "volume", "network", "mount", "process"}
    engine.remove("dstack-left")
    engine.cli("volume", "rm", "left")
    engine.cli("network", "rm", "dstack-net")
    assert engine.leftovers(before) == []


def test_registries(
    engine: Engine,
    open_registry: RegistryAddress,
    private_registry: RegistryAddress,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "auth.json").write_text("{}")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    public, private = open_registry.image("busybox"), private_registry.image("busybox")
    engine.cli("pull", public)
    refused = engine.run("pull", private)
    assert refused.returncode != 0
    assert "auth" in refused.stderr
    login = ["login", f"--username={private_registry.username}", "--password-stdin"]
    engine.cli(*login, private_registry.address, input=private_registry.password)
    engine.cli("pull", private)
    assert engine.holds(public, private)
    engine.cli("rmi", public, private)


def test_a_daemon_of_its_own_comes_back_after_a_kill(
    docker_daemon: Callable[..., Daemon],
) -> None:
    daemon = docker_daemon()
    first = daemon.pid
    assert daemon.answers()
    daemon.kill()
    assert not daemon.answers()
    daemon.launch()
    assert daemon.answers()
    assert daemon.pid != first
    daemon.restart()
    assert daemon.answers()
    daemon.stop()
    assert daemon.pid is None
    assert machine.mounts(daemon.folder) == []
    assert not machine.quietly("ip", "link", "show", daemon.name)


def test_a_daemon_with_a_full_disk(docker_daemon: Callable[..., Daemon]) -> None:
    daemon = docker_daemon(size="20m")
    big = b"x" * (30 << 20)
    done = subprocess.run(
        ["docker", "--host", daemon.host, "import", "-"],
        input=_tar("big", big),
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert b"no space left on device" in done.stderr


def test_containers_that_outlived_their_daemon_end_with_it(
    services: Services, docker_daemon: Callable[..., Daemon]
) -> None:
    daemon = docker_daemon("--live-restore")
    daemon.copy_image(services.engines["docker"], "busybox")
    client = daemon.client()
    command = ["sh", "-c", "exec sleep 300"]
    client.cli("run", "-d", "--name=dstack-outlives", client.image("busybox"), *command)
    main = int(client.cli("inspect", "--format={{.State.Pid}}", "dstack-outlives"))
    daemon.kill()
    assert machine.start_time(main)
    daemon.launch()
    assert client.containers(all=False) == ["dstack-outlives"]
    daemon.kill()
    daemon.stop()
    wait_for(lambda: not machine.start_time(main), "the container's process to end")
    assert machine.servants(daemon.folder) == []
    assert machine.mounts(daemon.folder) == []


def test_users_of_the_services_that_have_died_do_not_count(tmp_path: Path) -> None:
    services = Services(tmp_path)
    mine, dead = os.getpid(), subprocess.Popen(["true"])
    dead.wait()
    users = {str(mine): machine.start_time(mine), str(dead.pid): "1", "0": ""}
    services.state_file.write_text(json.dumps({"users": users}))
    assert services.users().keys() == {str(mine), "0"}
    users[str(mine)] = "1"  # another process that had the same id
    services.state_file.write_text(json.dumps({"users": users}))
    assert services.users().keys() == {"0"}


def test_only_our_rules_leave_the_packet_filter() -> None:
    mine, kept = (
        "-A FORWARD -i dst-none -j ACCEPT",
        ["-A FORWARD -i eth9 -j ACCEPT", ":INPUT ACCEPT [0:0]"],
    )
    lines = [
        "*filter",
        ":FORWARD DROP [0:0]",
        ":DOCKER - [0:0]",
        "-A FORWARD -o b -j DOCKER",
        mine,
        *kept,
    ]
    cleaned = machine.PacketFilter.without("\n".join(lines), ["DOCKER"], ["dst-none"], "ACCEPT")
    assert cleaned.splitlines() == ["*filter", ":FORWARD ACCEPT [0:0]", *kept]


def _tar(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/e2e/test_containers.py::test_a[docker]", "docker"),
        ("tests/contract/engine/test_commands.py::test_a[podman over ssh-$(]", "podman"),
        ("tests/contract/engine/test_podman_store.py::test_a", "podman"),
        ("tests/faults/test_container_kills.py::test_container_rounds_of_kills[podman]", "podman"),
        ("tests/faults/test_container_kills.py::test_container_rounds_of_kills[docker]", None),
        ("tests/contract/hosts/test_files.py::test_a[bare]", "tests/contract/hosts/test_files.py"),
        ("tests/contract/snapshot/test_send.py::test_a", None),
    ],
)
def test_who_shares_something_shares_a_worker(test: str, group: str | None) -> None:
    assert group_of(test) == (group or test)
