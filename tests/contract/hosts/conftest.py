"""Every kind of host that there is, for one suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dstack.hosts import channel, ssh_streams
from dstack.hosts.ssh import SshHost
from dstack.hosts.ssh_options import SshOptions
from tests.contract.hosts.places import *  # noqa: F403 (that is how fixtures are taken over)
from tests.hosts.client import Client
from tests.hosts.fixtures import *  # noqa: F403

SshHostMaker = Callable[..., SshHost]


@pytest.fixture
def ssh_host(
    ssh: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SshHostMaker]:
    """Make a host of `type: ssh`, by its alias; its connection ends with the test.

    What is there for it finds out after a second, instead of ten, that nobody is here any more.
    """
    assert ssh.hosts
    monkeypatch.setattr(channel, "BEAT", 1)
    beat = ssh_streams._BEAT.replace(b"sleep 10", b"sleep 1")
    assert beat != ssh_streams._BEAT
    monkeypatch.setattr(ssh_streams, "_BEAT", beat)
    made: list[SshHost] = []

    def make(alias: str, *, state: str = "state", **options: str) -> SshHost:
        host = SshHost(alias, SshOptions(alias, **options), tmp_path / state)
        made.append(host)
        return host

    yield make
    for host in made:
        host.disconnect()
