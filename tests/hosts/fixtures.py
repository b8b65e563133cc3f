"""Hosts for tests: `from tests.hosts.fixtures import *` in a conftest.py, and ask for them.

Each process that runs tests has hosts of its own, from the first test that needs them to its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.engine import Engine
from tests.engines.machine import wait_until
from tests.hosts import services
from tests.hosts.client import Client
from tests.hosts.services import Hosts

__all__ = ["docker_there", "hosts", "running_hosts", "ssh"]


# Seconds: the end of a connection that nobody could close knows it after a minute.
PATIENCE = 75.0


_running: list[Hosts] = []  # those of this process, once they are needed


@pytest.fixture(scope="session")
def running_hosts() -> Iterator[Hosts]:
    """All hosts, up; ask for `hosts` instead."""
    if os.geteuid() != 0:
        pytest.skip("the hosts are started as root; run the tests as root")
    if lacking := services.missing():
        pytest.skip(f"hosts need {' '.join(lacking)}: apt-get install openssh-server iproute2")
    if _running:
        # Each place that takes these fixtures over has a session of its own of this one.
        yield _running[0]
        return
    started = Hosts(os.getpid())
    _running.append(started)
    try:
        started.start()
        yield started
    finally:
        _running.clear()
        started.stop()


@pytest.fixture
def hosts(running_hosts: Hosts) -> Iterator[Hosts]:
    """All hosts, as when new. A job that a test leaves running there fails it."""
    yield running_hosts

    def left() -> list[str]:
        all = running_hosts.all.values()
        return [f"{host.name}: {process.command}" for host in all for process in host.jobs()]

    try:
        wait_until(lambda: not left(), "the jobs on the hosts to end", PATIENCE)
    except TimeoutError:
        pytest.fail(f"left behind: {left()}")
    finally:
        for host in running_hosts.all.values():
            host.clean()


@pytest.fixture
def docker_there(hosts: Hosts) -> Iterator[Engine]:
    """The Docker daemon of host `boxes`, running; a container that a test leaves there fails it."""
    docker = hosts.docker["boxes"]
    yield docker.start()
    # Another one when the host was rebooted.
    engine = docker.client()
    try:
        if docker.answers():
            wait_until(lambda: not engine.containers(), "the containers on boxes to go", 20.0)
    except TimeoutError:
        pytest.fail(f"left behind: {engine.containers()}")
    finally:
        docker.stop()


@pytest.fixture
def ssh(hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A user's own `ssh` that knows all hosts: the one that is found on the PATH from now on."""
    client = hosts.client(tmp_path / "ssh")
    for name, value in client.env().items():
        monkeypatch.setenv(name, value)
    return client
