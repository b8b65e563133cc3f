"""Image registries on loopback: an open one, and one that asks for a name and a password."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from tests.engines import machine

USERNAME = "ada"
# What breaks where someone quotes carelessly.
PASSWORD = 'it\'s $5 or "6%" \\ here'


class Registry:
    """One `docker-registry`, below `folder`; it speaks HTTP, which both engines are told."""

    def __init__(self, folder: Path, *, private: bool = False) -> None:
        self.folder = folder
        self.private = private
        self.port = 0

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`: the first part of its images' names."""
        return f"127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.folder / "config.yml"

    def start(self) -> None:
        """Start it on a free port and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(5):  # another process may take the port that was free
            self.port = free_port()
            self.config.write_text(json.dumps(self._settings()))  # JSON is YAML, too
            machine.detach(
                self.folder / "log",
                "env",
                "OTEL_TRACES_EXPORTER=none",
                "docker-registry",
                "serve",
                self.config,
            )
            machine.wait_until(lambda: not self.pids() or self.answers(), "the registry to answer")
            if self.answers():
                return
        raise RuntimeError(f"docker-registry ended: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End it; what it holds stays."""
        for pid in self.pids():
            machine.end(pid)

    def fill(self, source: Path) -> None:
        """Let it hold what the stopped registry in `source` holds, and nothing else."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        if (source / "data").is_dir():
            shutil.copytree(source / "data", self.folder / "data")

    def pids(self) -> list[int]:
        return list(machine.processes(str(self.config)))

    def answers(self) -> bool:
        """Whether it answers; a private one does so with 401."""
        try:
            urllib.request.urlopen(f"http://{self.address}/v2/", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 401
        except OSError:
            return False
        return True

    def _settings(self) -> dict[str, object]:
        settings: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "data")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.address},
        }
        if self.private:
            users = self.folder / "htpasswd"
            users.write_text(htpasswd(USERNAME, PASSWORD))
            settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(users)}}
        return settings


def htpasswd(username: str, password: str) -> str:
    """A line of Apache's password file, with bcrypt, the only kind that the registry reads."""
    command = ["htpasswd", "-Bin", "-C", "4", username]
    return subprocess.run(
        command, input=password, capture_output=True, text=True, check=True
    ).stdout


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
