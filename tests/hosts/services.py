"""Start and stop a set of hosts by hand: `python -m tests.hosts.services start`.

`stop` ends it; `env` prints what makes `ssh alpha` (or inner, bare, nogit, boxes) work in a shell.
Tests have sets of their own, below one folder, each named after the process that uses it; what a
killed one has left is taken away by the next start, and by `sweep`.
"""

from __future__ import annotations

import fcntl
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.engines import machine
from tests.hosts.client import Client, make_keys
from tests.hosts.docker import Docker, claim, give_back
from tests.hosts.host import Host, delete
from tests.hosts.network import Address
from tests.hosts.spec import HOSTS, PASSWORD, Spec

PARENT = Path("/var/tmp/dstack-test-hosts")
NETWORK = "10.214"
PROGRAMS = ("sshd", "ssh", "unshare", "nsenter", "ip", "ss", "iptables", "catatonit", "busybox")


class Hosts:
    """One set: the hosts of `specs`, that process `owner` uses (0: whoever, until `stop`)."""

    def __init__(self, owner: int = 0, specs: Sequence[Spec] = HOSTS) -> None:
        self.owner = owner
        self.specs = specs
        self.folder = PARENT / str(owner)
        self.all: dict[str, Host] = {}
        self.docker: dict[str, Docker] = {}

    def __getitem__(self, name: str) -> Host:
        return self.all[name]

    def start(self) -> None:
        """Start all of them."""
        with locked():
            sweep()
            delete(self.folder)
            self.folder.mkdir(parents=True)
            network = free_network()
            (self.folder / "owner").write_text(f"{self.owner} {machine.start_time(self.owner)}\n")
            (self.folder / "network").write_text(network)
            self._find(network)
            for name in self.docker:
                (self.folder / name).mkdir()
                (self.folder / name / "docker").symlink_to(claim(PARENT, self.owner))
        keys = make_keys(self.keys)
        secret = _password_hash()
        for host in self.all.values():
            host.prepare(keys, _uv(), secret)
            host.boot()
        for host in self.all.values():
            host.wait()

    def stop(self) -> None:
        """End all of them; nothing is left."""
        try:
            self._find((self.folder / "network").read_text())
        except OSError:
            if not self.all:
                return
        for host in reversed(self.all.values()):
            host.power_off()
        for name, docker in self.docker.items():
            docker.forget()
            give_back(self.folder / name / "docker")
        delete(self.folder)

    @property
    def keys(self) -> Path:
        """Where the users' keys lie."""
        return self.folder / "keys"

    def client(self, folder: Path) -> Client:
        """A user's `ssh`, set up in `folder`."""
        return Client(folder, self.keys, list(self.all.values()))

    def _find(self, network: str) -> None:
        """Know the hosts in this network, whether they run or not."""
        number = network.rpartition(".")[2]
        for index, spec in enumerate(self.specs):
            if spec.name in self.all:
                continue
            address = Address(f"{network}.{4 * index + 1}", f"{network}.{4 * index + 2}")
            near = self.all[spec.behind] if spec.behind else None
            # Names of network devices have 15 characters at most.
            device = f"dsth{number}-{spec.name}"[:15]
            host = Host(spec, self.folder / spec.name, device, address, near)
            self.all[spec.name] = host
            if spec.docker:
                self.docker[spec.name] = Docker(host)


@contextmanager
def locked() -> Iterator[None]:
    """Alone with all sets."""
    PARENT.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (PARENT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep() -> None:
    """End the sets whose processes are gone."""
    for folder in PARENT.iterdir():
        if not folder.name.isdigit() or folder.name == "0":
            continue
        try:
            owner, started = (folder / "owner").read_text().split()
        except (OSError, ValueError):
            owner, started = folder.name, "?"
        if machine.start_time(int(owner)) != started:
            Hosts(int(owner)).stop()
            delete(folder)


def free_network() -> str:
    """The first three numbers of a /24 that no set has, nor a route of this machine."""
    taken = {path.read_text() for path in PARENT.glob("*/network")}
    known = machine.quietly("ip", "-4", "route") + machine.quietly("ip", "-4", "addr")
    for number in range(1, 255):
        network = f"{NETWORK}.{number}"
        if network not in taken and not re.search(rf"\b{re.escape(network)}\.", known):
            return network
    raise RuntimeError(f"no free network in {NETWORK}.0.0/16")


def missing() -> list[str]:
    """Programs that hosts are made with, and that this machine lacks."""
    return [p for p in PROGRAMS if not shutil.which(p, path="/usr/sbin:/usr/bin:/sbin:/bin")]


def _uv() -> str | None:
    """The program that came with the tests' own environment."""
    beside = Path(sys.executable).with_name("uv")
    found = beside if beside.exists() else shutil.which("uv")
    return str(found) if found else None


def _password_hash() -> str:
    command = ["openssl", "passwd", "-6", "-salt", "dstacktests", PASSWORD]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: list[str]) -> None:
    """`start`, `stop`, `env` or `sweep`."""
    hosts = Hosts()
    match arguments:
        case ["start"]:
            hosts.stop()
            hosts.start()
            env = hosts.client(hosts.folder / "client").env({"PATH": "$PATH"})
            print(f'export PATH="{env["PATH"]}"')
        case ["stop"]:
            hosts.stop()
        case ["sweep"]:
            with locked():
                sweep()
        case ["env"]:
            print(f"export PATH={shlex.quote(str(hosts.folder / 'client/bin'))}:$PATH")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
