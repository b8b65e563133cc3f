"""A Docker daemon that is a host's own: in its namespaces, with its disk, gone when it reboots.

What it keeps lies outside the sets of hosts, so that images are loaded once and not with each set.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.engines import images, machine
from tests.engines.engine import PREFIX, Engine
from tests.engines.services import fingerprint, python, remove_others
from tests.hosts.host import Host

_SOCKET = "/run/docker.sock"
_LOG = "/var/log/docker.log"
_PARENT = "docker"


class Docker:
    """The daemon of `host`."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def start(self) -> Engine:
        """Start it, with the test images and nothing else; the client that reaches it from here."""
        self.launch()
        client = self.client()
        remove_others(client)
        if not client.holds(*map(client.image, images.IMAGES)):
            self._load(client)
        return client

    def launch(self) -> None:
        """Only the daemon, with what it had."""
        options = [
            "--data-root=/var/lib/docker",
            "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid",
            "--group=docker",
            f"--host=unix://{_SOCKET}",
            f"--cgroup-parent=/{self.host.link.device}",
        ]
        command = f"exec setsid dockerd {' '.join(options)} >{_LOG} 2>&1 </dev/null"
        machine.detach(self.host.folder / "log", *self.host.admin_command("sh", "-c", command))
        machine.wait_until(self._has_begun, f"the Docker daemon on {self.host.name} to begin", 20)
        machine.wait_until(
            lambda: self.answers() or not self._lives(), "the Docker daemon to answer"
        )
        if not self.answers():
            raise RuntimeError(f"dockerd ended: {self.host.path(_LOG).read_text()[-2000:]}")

    def client(self) -> Engine:
        """The client that talks to it, run on this machine."""
        address = f"unix://{self.host.path(_SOCKET)}"
        return Engine("docker", {"DOCKER_HOST": address}, self.host.folder)

    def answers(self) -> bool:
        """Whether it answers a client now."""
        return self.client().run("version").returncode == 0

    def stop(self) -> None:
        """End it with its containers."""
        if self._lives():
            client = self.client()
            if containers := client.cli("ps", "--all", "--quiet").split():
                client.remove(*containers)
            self.host.admin("kill", self.host.path("/run/docker.pid").read_text().strip())
            machine.wait_until(lambda: not self._lives(), "the Docker daemon to end")
        self.forget()

    def forget(self) -> None:
        """Remove what the machine still has of its containers: control groups without anyone."""
        machine.end_group(self.host.link.device)

    def _has_begun(self) -> bool:
        # One that ends at once has said why.
        log = self.host.path(_LOG)
        return self._lives() or (log.exists() and log.stat().st_size > 0)

    def _lives(self) -> bool:
        return any(p.command.startswith("dockerd ") for p in self.host.daemons())

    def _load(self, client: Engine) -> None:
        with images.layers_for(python(), self.host.folder) as made:
            archive = self.host.folder / "images.tar"
            images.write_archive(archive, made, PREFIX["docker"])
            client.cli("load", "--input", archive)
            archive.unlink()


def claim(parent: Path, owner: int) -> Path:
    """A folder for what a daemon of process `owner` keeps, which no living process uses.

    Call it while alone with `parent`. One that another has left is taken over, with its images.
    """
    place = parent / _PARENT
    place.mkdir(exist_ok=True)
    kind = fingerprint()
    for folder in sorted(place.iterdir()):
        if _is_free(folder):
            if folder.name.startswith(kind):
                return _take(folder, owner)
            shutil.rmtree(folder)  # of other images
    number = next(n for n in range(1000) if not (place / f"{kind}-{n}").exists())
    return _take(place / f"{kind}-{number}", owner)


def give_back(folder: Path) -> None:
    """Let the next one have it."""
    (folder / "owner").unlink(missing_ok=True)


def _take(folder: Path, owner: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "owner").write_text(f"{owner} {machine.start_time(owner)}\n")
    return folder


def _is_free(folder: Path) -> bool:
    try:
        owner, _, started = (folder / "owner").read_text().strip().partition(" ")
    except FileNotFoundError:
        return True
    return owner != "0" and machine.start_time(int(owner)) != started
