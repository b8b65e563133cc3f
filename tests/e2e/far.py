"""Sessions whose runs are on other machines: backends, and what is left on them afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.client import Client
from tests.hosts.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.hosts.services import Hosts
from tests.support import Dstack

BACKENDS = """
backends:
  - {name: local, type: local}
  - {name: alpha, type: ssh, host: alpha}
  - {name: inner, type: ssh, host: inner}
  - {name: bare, type: ssh, host: bare}
  - {name: nogit, type: ssh, host: nogit}
  - {name: boxes, type: ssh, host: boxes}
  - {name: nowhere, type: ssh, host: nowhere}
"""


@pytest.fixture
def far(dstack: Dstack, hosts: Hosts, ssh: Client) -> Iterator[Dstack]:
    """The command, with a backend for each host; connections end with the test."""
    assert ssh.config.exists()
    (dstack.home / "config.yml").write_text(BACKENDS)
    yield dstack
    for host in hosts.all.values():
        host.link.heal()
        # What a host still holds of connections that are dead at this end: it would try for long.
        host.link.reset()
    # While the hosts answer: what still runs is ended there, too.
    dstack("stop", "-a", "-x", "-y")
    end_masters(dstack.home)


def end_masters(home: Path) -> None:
    """End the shared connections, which outlive a command by design."""
    from dstack.hosts.ssh_master import socket_folder

    for path in Path(socket_folder(home)).iterdir():
        argv = ["ssh", "-o", f"ControlPath={path}", "-O", "exit", "--", "none"]
        subprocess.run(argv, capture_output=True, check=False, timeout=20)
        path.unlink(missing_ok=True)
