"""The test images, as an archive that `docker load` and `podman load` both read.

The format is that of `docker save`: `manifest.json`, one configuration per image, layers as tars.
https://github.com/moby/docker-image-spec
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests.engines import layers

PATH = "/usr/local/bin:/usr/bin:/bin"
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class Image(NamedTuple):
    """One image: the layer it stands on, its configuration, and the CPU it is for."""

    layer: str
    config: dict[str, Any]
    architecture: str = MACHINE


IMAGES = {
    "busybox": Image("busybox", {"Env": ["PATH=/bin"], "Cmd": ["sh"]}),
    "python": Image("python", {"Env": [f"PATH={PATH}", "FROM_IMAGE=a value"], "Cmd": ["python3"]}),
    "user": Image(
        "python",
        {
            "Env": [f"PATH={PATH}"],
            "User": "app",
            "WorkingDir": "/home/app",
            "Cmd": ["bash"],
        },
    ),
    "entry": Image(
        "python",
        {
            "Env": [f"PATH=/opt/entry/bin:{PATH}"],
            "Entrypoint": ["/opt/entry/bin/entry"],
            "Cmd": ["echo", "the image's own command"],
            "WorkingDir": "/opt/entry",
        },
    ),
    "scratch": Image("single", {"Entrypoint": ["/busybox", "echo"], "Cmd": ["hello from scratch"]}),
    "foreign": Image(
        "foreign",
        {"Env": ["PATH=/bin"], "Cmd": ["true"]},
        "arm64" if MACHINE != "arm64" else "amd64",
    ),
}


@contextmanager
def layers_for(python: str, folder: Path) -> Iterator[dict[str, Path]]:
    """Write all layers below `folder`, which must exist; gone afterwards."""
    with TemporaryDirectory(dir=folder) as work:
        made = {
            name: Path(work) / f"{name}.tar" for name in ("busybox", "single", "foreign", "python")
        }
        layers.busybox_layer(made["busybox"])
        layers.single_binary_layer(made["single"])
        layers.foreign_layer(made["foreign"])
        layers.python_layer(made["python"], python)
        yield made


def write_archive(target: Path, made: dict[str, Path], prefix: str) -> None:
    """Write every image of IMAGES, called `PREFIX/NAME:latest`, into one archive."""
    digests = {name: _sha256(path) for name, path in made.items()}
    manifest = []
    with tarfile.open(target, "w") as archive:
        for name, path in made.items():
            archive.add(path, f"{digests[name]}.tar")
        for name, image in IMAGES.items():
            config = json.dumps(_config(image, digests[image.layer])).encode()
            config_name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add(archive, config_name, config)
            manifest.append(
                {
                    "Config": config_name,
                    "RepoTags": [f"{prefix}/{name}:latest"],
                    "Layers": [f"{digests[image.layer]}.tar"],
                }
            )
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _config(image: Image, layer_digest: str) -> dict[str, Any]:
    created = "2024-01-01T00:00:00Z"
    return {
        "architecture": image.architecture,
        "os": "linux",
        "created": created,
        "config": image.config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [{"created": created, "created_by": "dstack's tests"}],
    }


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
