"""One engine as the tests see it: its client, its images, and what it holds of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.engines import machine
from tests.engines.images import IMAGES

PREFIX = {"docker": "dstack-test", "podman": "localhost/dstack-test"}

NETNS = Path("/run/netns")  # where Podman, as `ip netns`, keeps network namespaces; mounted once


class Engine:
    """Docker or Podman through its own command; `env` is what leads the command to ours.

    `folder` is where the engine keeps all that is its own on this machine.
    """

    def __init__(self, name: str, env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.env = dict(env)
        self.folder = folder

    @property
    def installed(self) -> bool:
        programs = {"docker": ("docker", "dockerd", "runc"), "podman": ("podman", "runc")}[
            self.name
        ]
        return all(shutil.which(program) for program in programs)

    def image(self, name: str) -> str:
        """The full name of one of IMAGES, as this engine knows it."""
        if name not in IMAGES:
            raise KeyError(f"no test image is called {name}; there are {', '.join(IMAGES)}")
        return f"{PREFIX[self.name]}/{name}:latest"

    def run(self, *args: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        """The client with `args`, to its end, whatever that is."""
        given: dict[str, Any] = {"timeout": 120.0, "input": "", **options}
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

    def snapshot(self) -> set[str]:
        """All that a container is made of and may leave behind: `KIND NAME` each.

        Containers, volumes and networks of ours; and, whoever's they are, mounts, network
        namespaces, and the processes that serve containers and their published ports.
        """
        found = {f"container {name}" for name in self.containers()}
        for kind in ("volume", "network"):
            lines = self.cli(kind, "ls", "--format", "{{.Name}}\t{{.Labels}}").splitlines()
            found |= {f"{kind} {line.split()[0]}" for line in lines if is_ours(line)}
        mounts = machine.mounts(self.folder)
        # Docker's own name for the machine's network: made once, and there to stay.
        found |= {f"mount {point}" for point in mounts if not point.endswith("/netns/default")}
        if self.name == "podman":
            found |= {f"mount {point}" for point in machine.mounts(NETNS) if point != str(NETNS)}
        return found | {f"process {line}" for line in machine.servants(self.folder)}

    def leftovers(self, before: set[str], timeout: float = 20.0) -> list[str]:
        """What is there beyond the snapshot `before`, after up to `timeout` seconds to go away."""
        try:
            machine.wait_until(lambda: self.snapshot() <= before, "leftovers to go", timeout)
        except TimeoutError:
            return sorted(self.snapshot() - before)
        return []

    def remove(self, *containers: str) -> None:
        """Remove containers at once; Podman would wait ten seconds for those deaf to SIGTERM."""
        self.cli("rm", "--force", *(["--time=0"] if self.name == "podman" else []), *containers)

    def holds(self, *references: str) -> bool:
        """Whether all these images are there."""
        return self.run("image", "inspect", *references).returncode == 0


def is_ours(line: str) -> bool:
    """Whether `NAME<tab>LABELS` is called dstack-… or carries a label of dstack's."""
    name, _, labels = line.partition("\t")
    return name.startswith("dstack-") or "dstack" in labels
