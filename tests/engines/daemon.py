"""A Docker daemon of our own, in a folder of its own, beside whatever else runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from zlib import crc32

from tests.engines import machine
from tests.engines.engine import Engine


class Daemon:
    """One `dockerd` (with the containerd it starts), all of whose state is below `folder`.

    `size` (such as "64m") puts the data on a memory file system of that size, for full disks.
    Without `filter_rules` it leaves the packet filter alone: containers reach this machine and
    are reached from it (published ports on 127.0.0.1, too), but not the world.
    """

    def __init__(
        self, folder: Path, *options: str, size: str | None = None, filter_rules: bool = False
    ) -> None:
        self.folder = folder
        self.options = options
        self.size = size
        self.filter_rules = filter_rules
        # Names of network devices have 15 characters at most, those of sockets 107.
        self.name = f"dst-{crc32(str(folder).encode()):08x}"
        self.socket = folder / "docker.sock"
        if len(str(self.socket)) > 107:
            raise ValueError(f"{self.socket} is too long for a socket; take a shorter folder")

    @property
    def host(self) -> str:
        """The value for DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def data(self) -> Path:
        return self.folder / "docker"

    @property
    def pid(self) -> int | None:
        """The living daemon's process, whoever started it."""
        for pid in machine.processes(f"--data-root={self.data}"):
            if machine.start_time(pid):
                return pid
        return None

    def _has_ended(self) -> bool:
        """Whether it is not there, and not there either when looked for again.

        A look through /proc misses a process that was started while it looked.
        """
        for _ in range(4):
            if self.pid is not None:
                return False
            time.sleep(0.25)
        return True

    def start(self) -> None:
        """Start it and wait until it answers. What an earlier one left alive is ended first."""
        self.clean()
        self.data.mkdir(parents=True, exist_ok=True)
        if self.size:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.data], check=True
            )
        machine.add_bridge(self.name)
        self.launch()

    def launch(self) -> None:
        """Only the process, with the data, bridge and containers as they are."""
        # A daemon takes a killed one's containerd for alive while nobody has reaped its zombie.
        for stale in (self.folder / "docker.pid", self.folder / "exec/containerd/containerd.pid"):
            if stale.exists() and not machine.start_time(int(stale.read_text())):
                stale.unlink()
        machine.detach(
            self.folder / "docker.log",
            "dockerd",
            f"--data-root={self.data}",
            f"--exec-root={self.folder / 'exec'}",
            f"--pidfile={self.folder / 'docker.pid'}",
            f"--host={self.host}",
            f"--bridge={self.name}",
            f"--cgroup-parent=/{self.name}",
            f"--iptables={str(self.filter_rules).lower()}",
            "--ip6tables=false",
            *self.options,
        )
        machine.wait_until(
            lambda: self.answers() or self._has_ended(), "the Docker daemon to answer"
        )
        if self.pid is None:
            raise RuntimeError(f"dockerd ended: {self.log_tail()}")

    def answers(self) -> bool:
        """Whether the daemon answers a client now."""
        command = ["docker", "--host", self.host, "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def client(self) -> Engine:
        """The client that talks to this daemon."""
        return Engine("docker", {"DOCKER_HOST": self.host}, self.folder)

    def copy_image(self, source: Engine, name: str) -> None:
        """Bring one of the test images over from another Docker."""
        archive = self.folder / "image.tar"
        source.cli("save", "--output", archive, source.image(name))
        self.client().cli("load", "--input", archive)
        archive.unlink()

    def log_tail(self) -> str:
        lines = (self.folder / "docker.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-5:])

    def kill(self) -> None:
        """SIGKILL for the daemon alone; containers' own processes live on."""
        if pid := self.pid:
            os.kill(pid, signal.SIGKILL)
            machine.end(pid)
            # Its containerd dies with it, a moment later; the next one would take it for alive.
            stale = self.folder / "exec/containerd/containerd.pid"
            if stale.exists():
                other = int(stale.read_text())
                machine.wait_until(lambda: not machine.start_time(other), "containerd to end")

    def terminate(self) -> None:
        """SIGTERM; the daemon stops its containers (unless --live-restore) and ends."""
        if pid := self.pid:
            machine.end(pid)

    def restart(self) -> None:
        """As an administrator does: end it, start it again with the same data."""
        self.terminate()
        self.launch()

    def stop(self) -> None:
        """End it and all that it started, and take its mounts and its bridge away."""
        self.terminate()
        self.clean()

    def clean(self) -> None:
        """End and unmount what is left of a daemon here, however it ended."""
        self.kill()
        machine.end_group(self.name)
        for pid in machine.processes(f"{self.folder}/exec/"):
            machine.end(pid, 5.0)
        machine.unmount(self.folder)
        if Path(f"/sys/class/net/{self.name}").exists():
            machine.quietly("ip", "link", "del", self.name)
        shutil.rmtree(self.folder / "exec", ignore_errors=True)
        self.socket.unlink(missing_ok=True)
