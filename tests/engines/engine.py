"""One engine as the tests see it: its client, its images, and what it holds of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from tests.engines.images import IMAGES

PREFIX = {"docker": "dstack-test", "podman": "localhost/dstack-test"}


class Engine:
    """Docker or Podman through its own command; `env` is what leads the command to ours."""

    def __init__(self, name: str, env: Mapping[str, str]) -> None:
        self.name = name
        self.env = dict(env)

    @property
    def installed(self) -> bool:
        programs = {"docker": ("docker", "dockerd", "runc"), "podman": ("podman", "runc")}[self.name]
        return all(shutil.which(program) for program in programs)

    def image(self, name: str) -> str:
        """The full name of one of IMAGES, as this engine knows it."""
        if name not in IMAGES:
            raise KeyError(f"no test image is called {name}; there are {', '.join(IMAGES)}")
        return f"{PREFIX[self.name]}/{name}:latest"

    def run(self, *args: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        """The client with `args`, to its end, whatever that is."""
        given: dict[str, Any] = {"timeout": 120.0, "stdin": subprocess.DEVNULL, **options}
        return subprocess.run(
            [self.name, *map(str, args)],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            check=False,
            **given,
        )

    def cli(self, *args: Any, **options: Any) -> str:
        """What the client says with `args`, which must succeed."""
        done = self.run(*args, **options)
        assert done.returncode == 0, f"{done.args} exited with {done.returncode}:\n{done.stderr}"
        return done.stdout.strip()

    def containers(self, *, all: bool = True) -> list[str]:
        """Names of our containers; without `all` only those that run."""
        flags = ["--all"] if all else []
        found = self.cli("ps", *flags, "--format", "{{.Names}}\t{{.Labels}}").splitlines()
        return sorted(line.split("\t")[0] for line in found if is_ours(line))

    def things(self) -> set[str]:
        """Containers, volumes and networks of ours: `KIND NAME` each."""
        found = {f"container {name}" for name in self.containers()}
        for kind in ("volume", "network"):
            lines = self.cli(kind, "ls", "--format", "{{.Name}}\t{{.Labels}}").splitlines()
            found |= {f"{kind} {line.split()[0]}" for line in lines if is_ours(line)}
        return found

    def holds(self, reference: str) -> bool:
        """Whether the image is there."""
        return self.run("image", "inspect", reference).returncode == 0


def is_ours(line: str) -> bool:
    """Whether `NAME<tab>LABELS` is called dstack-… or carries a label of dstack's."""
    name, _, labels = line.partition("\t")
    return name.startswith("dstack-") or "dstack" in labels
