"""Podman with storage, networks and settings of its own, all below one folder."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from zlib import crc32

from tests.engines import machine
from tests.engines.engine import Engine

# crun fails where control groups are of both versions, and limits above the shell's own cannot be
# set without CAP_SYS_RESOURCE.
CONTAINERS = """[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/tmp"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
STORAGE = """[storage]
driver = "overlay"
graphroot = "{folder}/data"
runroot = "{folder}/run"
"""
REGISTRY = """[[registry]]
location = "{address}"
insecure = true
"""
# Podman's own default network always has this id; its interface is named by us.
DEFAULT_NETWORK = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9"


class Podman:
    """Podman's folder: settings, data and what runs.

    `size` (such as "64m") puts the data on a memory file system of that size, for full disks.
    `beside` is another one, whose network this one leaves alone.
    """

    def __init__(
        self, folder: Path, *, size: str | None = None, beside: Podman | None = None
    ) -> None:
        self.folder = folder
        self.size = size
        self.beside = beside
        self.bridge = f"pst-{crc32(str(folder).encode()):08x}"
        self.env = {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        }

    def configure(self, registries: list[str]) -> None:
        """Write the settings; `registries` (`HOST:PORT`) are spoken to without TLS."""
        for name in ("networks", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        data = self.folder / "data"
        if self.size and not machine.mounts(data):
            data.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", str(data)]
            subprocess.run(mount, check=True)
        insecure = "".join(REGISTRY.format(address=address) for address in registries)
        files = {
            "containers.conf": CONTAINERS.format(folder=self.folder),
            "storage.conf": STORAGE.format(folder=self.folder),
            "registries.conf": f"unqualified-search-registries = []\n{insecure}",
            "networks/podman.json": json.dumps(self._network()),
        }
        for name, content in files.items():
            (self.folder / name).write_text(content)

    def client(self) -> Engine:
        """The client that works in this folder."""
        return Engine("podman", self.env, self.folder)

    def copy_image(self, source: Engine, name: str) -> None:
        """Bring one of the test images over from another Podman."""
        archive = self.folder / "image.tar"
        source.cli("save", "--output", archive, source.image(name))
        self.client().cli("load", "--input", archive)
        archive.unlink()

    def clean(self) -> None:
        """Remove containers, volumes and networks, and end what is left of them."""
        if (self.folder / "containers.conf").exists() and (self.folder / "data").exists():
            engine = self.client()
            for args in (
                ("rm", "--all", "--force", "--time=0"),
                ("volume", "rm", "--all", "--force"),
                ("network", "prune", "--force"),
            ):
                engine.run(*args)
        for pid in machine.processes(f"{self.folder}/"):
            machine.end(pid, 5.0)
        for container in (self.folder / "data/overlay-containers").glob("*/"):
            machine.end_group(f"libpod-{container.name}")
        # What all Podmans of the machine share goes only when nobody is in it.
        for group in machine.CGROUPS.glob("*/libpod_parent"):
            for empty in (*group.glob("*/"), group):
                machine.quietly("rmdir", empty)
        machine.unmount(self.folder)
        if Path(f"/sys/class/net/{self.bridge}").exists():
            machine.quietly("ip", "link", "del", self.bridge)
        for name in ("run", "tmp"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _network(self) -> dict[str, object]:
        taken = self.beside.folder / "networks/podman.json" if self.beside else None
        network = machine.free_network(taken.read_text() if taken else "")
        return {
            "name": "podman",
            "id": DEFAULT_NETWORK,
            "driver": "bridge",
            "network_interface": self.bridge,
            "created": "2024-01-01T00:00:00Z",
            "subnets": [{"subnet": f"{network}.0/24", "gateway": f"{network}.1"}],
            "ipv6_enabled": False,
            "internal": False,
            "dns_enabled": False,
            "ipam_options": {"driver": "host-local"},
        }
