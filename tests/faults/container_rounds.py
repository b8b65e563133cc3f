"""Rounds of killing where the job runs in a container: there is more to kill, and to leave."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.engines.engine import Engine
from tests.faults.rounds import CHILDREN, Round, kill
from tests.support import Dstack

IMAGES = ("busybox", "python")
CGROUPS = Path("/sys/fs/cgroup")


class ContainerRound(Round):
    """A round on `engine`; the job's own files lie in a folder that its container is given."""

    victim_kinds = (
        *("cli", "keeper", "supervisor", "client", "killed", "removed", "init"),
        *("cli+keeper", "keeper+client", "client+supervisor", "cli+client", "client+removed"),
        *("cli+keeper+client+supervisor", "stop"),
    )
    fatal = frozenset({"keeper", "client", "killed", "removed", "init"})

    def __init__(self, seed: int, side: Path, engine: Engine, home: Path) -> None:
        super().__init__(seed, side)
        self.engine = engine
        self.home = home
        self.image = IMAGES[seed % len(IMAGES)]
        if self.image == "python" and "setsid" in CHILDREN[self.children]:
            # There is no such program in that image.
            self.children = "background"
        if engine.name == "podman" and "client" in self.victims:
            # Podman's client makes the container itself. Killed in the middle it leaves a network
            # namespace, or conmon, that Podman itself does not know of: so not before it runs.
            self.moment, self.retry = "lines", False

    @property
    def truth(self) -> Path:
        found = list(self.home.glob(f"cache/*/%2Fside-{self.seed}"))
        return found[0] if found else self.side / "nowhere"

    def settings(self) -> tuple[str, str]:
        inside = f"/side-{self.seed}"
        return inside, f"image: {self.engine.image(self.image)}\ncache: [{inside}]\n"

    @property
    def more_ends(self) -> tuple[tuple[str, str, int], ...]:  # type: ignore[override]
        return (("failed", "start_failed", 125),) if "removed" in self.victims else ()

    def is_excuse(self, line: str) -> bool:
        # Taken away before it was started: the engine's client says so.
        return "removed" in self.victims and line.lower().startswith(("docker:", "error:"))

    def strike(self, dstack: Dstack, victim: str) -> bool:
        names = [f"dstack-{job.parent.name}-{job.name}" for job in active(dstack)]
        if victim == "client":
            return sum(kill(pid) for name in names for pid in clients(name)) > 0
        if victim == "init":
            return sum(kill(pid) for name in names for pid in self._main(name)) > 0
        if victim == "killed":
            return sum(self.engine.run("kill", name).returncode == 0 for name in names) > 0
        if victim == "removed":
            force = ["--force", *(["--time=0"] if self.engine.name == "podman" else [])]
            # It says yes, too, to what is not there, and no to what is being removed already.
            return bool([self.engine.run("rm", *force, name) for name in names])
        return super().strike(dstack, victim)

    def _main(self, name: str) -> list[int]:
        done = self.engine.run("inspect", "--format", "{{.State.Pid}}", name)
        pid = int(done.stdout) if done.returncode == 0 else 0
        return [pid] if pid else []

    def left(self, run_id: str | None) -> list[str]:
        mark = f"label=dstack.run={run_id}" if run_id else f"label=dstack={label_of(self.home)}"
        names = self.engine.cli("ps", "-a", "--filter", mark, "--format", "{{.Names}}").split()
        return super().left(run_id) + [f"container {name}" for name in names]


def label_of(home: Path) -> str:
    """What marks all containers of a state folder."""
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:12]


def active(dstack: Dstack) -> list[Path]:
    """The folders of the jobs that were begun and have not ended."""
    found = [script.parent for script in dstack.home.glob("runs/*/*/job.sh")]
    return [job for job in found if not (job / "exit").exists()]


def clients(name: str) -> list[int]:
    """The engine's clients that run the container called `name`, or make an image of it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if words[1:2] in ([b"run"], [b"commit"]) and name.encode() in words:
            found.append(int(entry.name))
    return found


def cgroups(below: str) -> set[str]:
    """The control groups of the containers below one called `below`, by path."""
    found: set[str] = set()
    for folder, names, _ in os.walk(CGROUPS):
        if below in folder.split("/"):
            found |= {f"{folder}/{name}" for name in names}
    return found
