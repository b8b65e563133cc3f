"""Engines for tests: `from tests.engines.fixtures import *` in a conftest.py, and ask for them.

The services start with the first test that needs them and end with the last session that does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.engines import services as engine_services
from tests.engines.daemon import Daemon
from tests.engines.engine import Engine
from tests.engines.registry import PASSWORD, USERNAME
from tests.engines.services import Services

__all__ = [
    "busy_engine",
    "docker_daemon",
    "engine",
    "engine_name",
    "exclusive",
    "held",
    "open_registry",
    "private_registry",
    "services",
]


class RegistryAddress(NamedTuple):
    """A registry for tests: images are `ADDRESS/dstack-test/NAME`."""

    address: str
    username: str | None = None
    password: str | None = None

    def image(self, name: str) -> str:
        """The full name of one of the test images there."""
        return f"{self.address}/dstack-test/{name}:latest"


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """All engines and registries, running."""
    if os.geteuid() != 0:
        pytest.skip("the container engines are started as root; run the tests as root")
    if not shutil.which("docker-registry") or not shutil.which("htpasswd"):
        pytest.skip("the registries are missing: apt-get install docker-registry apache2-utils")
    started = engine_services.here()
    engine_services.remove_outdated()
    started.start(os.getpid())
    yield started
    started.stop(os.getpid())


@pytest.fixture(params=["docker", "podman"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """The name of the engine under test."""
    name: str = request.param
    return name


@pytest.fixture
def busy_engine(
    engine_name: str, services: Services, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """An engine that other tests use at the same time; what is left is not looked for."""
    with held(services, engine_name, monkeypatch, fcntl.LOCK_SH) as found:
        yield found


@pytest.fixture
def engine(
    engine_name: str, services: Services, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """An engine that no other test uses meanwhile; what this one leaves behind fails it.

    Clients started by the test find the engine through the environment.
    """
    with exclusive(services, engine_name, monkeypatch) as found:
        yield found


@pytest.fixture
def open_registry(services: Services) -> RegistryAddress:
    """A registry that anyone may pull from and push to."""
    return RegistryAddress(services.open.address)


@pytest.fixture
def private_registry(services: Services) -> RegistryAddress:
    """A registry that asks for a name and a password."""
    return RegistryAddress(services.private.address, USERNAME, PASSWORD)


@pytest.fixture
def docker_daemon() -> Iterator[Callable[..., Daemon]]:
    """Start a Docker daemon for this test alone: `docker_daemon("--live-restore", size="64m")`."""
    # Not below tmp_path, which is too long for a socket's name.
    folder = Path(tempfile.mkdtemp(prefix="dst-", dir="/var/tmp"))
    started: list[Daemon] = []

    def start(*options: str, size: str | None = None) -> Daemon:
        _need(Engine("docker", {}, folder))
        daemon = Daemon(folder / str(len(started)), *options, size=size)
        started.append(daemon)
        daemon.folder.mkdir()
        daemon.start()
        return daemon

    yield start
    for daemon in started:
        daemon.stop()
    shutil.rmtree(folder)


def _need(engine: Engine) -> None:
    if not engine.installed:
        package = {"docker": "docker.io containerd runc", "podman": "podman runc netavark"}
        pytest.skip(f"{engine.name} is missing: apt-get install {package[engine.name]}")


@contextmanager
def exclusive(services: Services, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """See `engine`."""
    with held(services, name, monkeypatch, fcntl.LOCK_EX) as found:
        before = found.snapshot()
        yield found
        left = found.leftovers(before)
        for line in left:
            kind, _, left_name = line.partition(" ")
            if kind == "container":
                found.remove(left_name)
            elif kind in {"volume", "network"}:
                found.run(kind, "rm", "--force", left_name)
        assert not left, f"left behind: {left}"


@contextmanager
def held(
    services: Services, name: str, monkeypatch: pytest.MonkeyPatch, mode: int = fcntl.LOCK_SH
) -> Iterator[Engine]:
    """The engine with its lock (shared or exclusive), and the environment that leads to it."""
    engine = services.engines[name]
    _need(engine)
    with (services.folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, mode)
        for key, value in engine.env.items():
            monkeypatch.setenv(key, value)
        yield engine
