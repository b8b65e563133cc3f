"""Every kind of host there is, each in the places where it could behave differently."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.hosts.base import Host
from dstack.hosts.local import LocalHost
from dstack.hosts.ssh import SshHost
from dstack.hosts.ssh_options import SshOptions
from tests.engines.machine import wait_until
from tests.hosts.fixtures import PATIENCE
from tests.hosts.host import Host as Machine
from tests.hosts.services import Hosts
from tests.hosts.spec import USERS

__all__ = ["place"]

PLACES = ("local", "alpha", "bare")
# What a login shell is or prints, and a jump host, must make no difference. They stand before the
# one shell in which all requests are done, so not every file of tests needs them.
ALL_PLACES = (*PLACES, "inner", "alpha.csh", "alpha.fish", "alpha.noisy")


class Place:
    """A host under test, and what else is known of it.

    `machine` is None for this one; `user` is who we are there.
    """

    def __init__(
        self, name: str, host: Host, machine: Machine | None, user: str, base: Path
    ) -> None:
        self.name = name
        self.host = host
        self.machine = machine
        self.user = user
        self._folders = (base / f"f{number}" for number in itertools.count())

    def see(self, path: Path) -> Path:
        """Where what lies there at `path` is seen from here."""
        return self.machine.path(str(path)) if self.machine else path

    def folder(self) -> Path:
        """A new empty folder there."""
        path = next(self._folders)
        seen = self.see(path)
        seen.mkdir(parents=True)
        if self.machine:
            number = USERS[self.user][0]
            for made in (seen.parent, seen):
                os.chown(made, number, number)
        return path

    def write(self, path: Path, data: bytes) -> None:
        """Make a file there, without the host under test."""
        self.see(path).write_bytes(data)
        if self.machine:
            os.chown(self.see(path), USERS[self.user][0], USERS[self.user][0])


def commands(place: Place) -> list[str]:
    """The command lines of what runs there."""
    script = 'for p in /proc/[0-9]*; do tr "\\0" " " <$p/cmdline && echo; done 2>/dev/null; true'
    out = place.host.run(["sh", "-c", script]).out
    return [line.rstrip() for line in out.decode(errors="replace").splitlines()]


@pytest.fixture(scope="module", params=PLACES)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """One host after the other, each with one connection for all tests of a file."""
    name: str = request.param
    base = tmp_path_factory.mktemp("place")
    if name == "local":
        local = LocalHost(base / "root")
        yield Place(name, local, None, "root", base)
        local.close()
        return
    running: Hosts = request.getfixturevalue("running_hosts")
    machine = running[name.partition(".")[0]]
    user = name.partition(".")[2] or "me"
    with pytest.MonkeyPatch.context() as patch:
        for key, value in running.client(base / "ssh").env().items():
            patch.setenv(key, value)
        host = SshHost(name, SshOptions(host=name), base / "state")
        yield Place(name, host, machine, user, Path(f"/home/{user}/place"))
        host.disconnect()
    # What ran there for us ends with the connection.
    try:
        wait_until(lambda: not machine.jobs(), "what we left there to end", PATIENCE)
    except TimeoutError:
        pytest.fail(f"left on {machine.name}: {machine.jobs()}")
    finally:
        for each in running.all.values():
            each.clean()
