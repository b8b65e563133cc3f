"""Rounds of killing where the job runs on another machine, and the way there is cut meanwhile."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dstack.digest import digest
from tests.engines.machine import processes
from tests.faults.container_rounds import IMAGES
from tests.faults.rounds import CHILDREN, Round, kill
from tests.hosts.docker import Docker
from tests.hosts.host import Host
from tests.hosts.spec import USERS
from tests.support import Dstack

_CUTS = (
    *("down", "here", "drop", "slow", "reset", "half-open", "refuse"),
    *("master", "sessions", "reboot", "nothing"),
)
# Seconds: shorter than anybody notices, longer than a connection lives without an answer.
_OUTAGES = ((0.0, 0.3), (0.0, 3.0), (0.0, 3.0), (3.0, 8.0), (16.0, 22.0))


class CutRound(Round):
    """A round on `host`: one thing happens to the way there or to what holds it, then a kill."""

    victim_kinds = (
        *("nobody", "nobody", "nobody", "cli", "keeper", "supervisor", "cli+supervisor"),
        *("cli+keeper", "all", "stop", "stop"),
    )

    def __init__(self, seed: int, side: Path, host: Host, home: Path) -> None:
        """`home` is dstack's folder here."""
        super().__init__(seed, side)
        self.host = host
        self.home = home
        draw = random.Random(f"cut {seed}")
        self.what = draw.choice(_CUTS)
        self.outage = draw.uniform(*draw.choice(_OUTAGES))
        self.place = f"/home/me/side-{seed}"
        folder = host.path(self.place)
        folder.mkdir()
        os.chown(folder, USERS["me"][0], USERS["me"][0])

    def __str__(self) -> str:
        hidden = {"side", "host", "home", "known", "docker"}
        return " ".join(f"{key}={value}" for key, value in vars(self).items() if key not in hidden)

    @property
    def truth(self) -> Path:
        return self.host.path(self.place)

    def settings(self) -> tuple[str, str]:
        return self.place, ""

    @property
    def lost(self) -> bool:
        return self.what == "reboot"

    @property
    def more_ends(self) -> tuple[tuple[str, str, int], ...]:  # type: ignore[override]
        return (("failed", "host_restarted", 137),) if self.lost else ()

    def begin(self, dstack: Dstack) -> None:
        self.known = self._runs()

    def job(self, dstack: Dstack, before: set[Path]) -> Path | None:
        """See Round. A run in the background has no folder here."""
        new = self._runs() - self.known
        return self.host.path(f"{_RUNS}/{next(iter(new))}/1") if new else None

    def _runs(self) -> set[str]:
        return {path.name for path in self.host.path(_RUNS).glob("*")}

    def ends(self, dstack: Dstack) -> int:
        there = self.host.path(_RUNS).glob("*/*/exit") if self.host.pid else ()
        return sum(1 for _ in there)

    @contextmanager
    def trouble(self) -> Iterator[None]:
        self.cut()
        try:
            yield
        finally:
            self.mend()

    def cut(self) -> None:
        link = self.host.link
        if self.what == "down":
            link.cut()
        elif self.what == "here":
            link.cut(here=True)
        elif self.what == "drop":
            link.drop()
        elif self.what == "slow":
            link.slow(0.2, 0.01, self.seed)
        elif self.what == "reset":
            link.reset()
        elif self.what == "half-open":
            link.half_open()
        elif self.what == "refuse":
            self.host.stop_sshd()
            link.reset()
        elif self.what == "master":
            for pid in masters(self.home):
                kill(pid)
        elif self.what == "sessions":
            for process in self.host.processes():
                if process.command.startswith("sshd: "):
                    kill(process.pid)
        elif self.what == "reboot":
            self.host.power_off()

    def mend(self) -> None:
        if self.what in {"down", "here", "drop", "slow", "refuse", "reboot"}:
            time.sleep(self.outage)
        if self.what == "reboot":
            self.host.start()
        elif self.what == "refuse":
            self.host.start_sshd()
        else:
            self.host.link.heal()

    def unbegun(self, said: str) -> bool:
        # Before anything is recorded the command may give up on who does not answer.
        return self.what != "nothing" and f"{self.host.name} cannot be reached" in said

    def strike(self, dstack: Dstack, victim: str) -> bool:
        if victim == "nobody":
            return False
        if victim == "keeper":
            return sum(self._kill_there(pid) for pid in self._keepers()) > 0
        return super().strike(dstack, victim)

    def _keepers(self) -> list[int]:
        """The keepers of jobs there that have not ended, by their numbers there."""
        if not self.host.pid:
            return []
        links = (path for path in self.host.path(_RUNS).glob("*/*/pid*") if path.name == "pid")
        known = [link for link in links if not link.with_name("exit").exists()]
        return [int(os.readlink(link).split(":")[0]) for link in known]

    def _kill_there(self, pid: int) -> bool:
        """SIGKILL; one that has just ended is no error."""
        self.host.admin("sh", "-c", f"kill -9 {pid} 2>/dev/null; true")
        return True


class ContainerCutRound(CutRound):
    """A round of which the job is in a container, on a host with a Docker daemon of its own."""

    def __init__(self, seed: int, side: Path, docker: Docker, home: Path) -> None:
        super().__init__(seed, side, docker.host, home)
        self.docker = docker
        self.image = IMAGES[seed % len(IMAGES)]
        if self.image == "python" and "setsid" in CHILDREN[self.children]:
            # There is no such program in that image.
            self.children = "background"

    @property
    def truth(self) -> Path:
        found = list(self.host.path("/home/me/.dstack/cache").glob(f"*/%2Fside-{self.seed}"))
        return found[0] if found else self.side / "nowhere"

    def settings(self) -> tuple[str, str]:
        inside = f"/side-{self.seed}"
        return inside, f"image: {self.docker.client().image(self.image)}\ncache: [{inside}]\n"

    def mend(self) -> None:
        super().mend()
        if self.what == "reboot":
            self.docker.launch()

    def left(self, run_id: str | None) -> list[str]:
        return super().left(run_id) + [f"container {c}" for c in self.docker.client().containers()]


_RUNS = "/home/me/.dstack/runs"


def masters(home: Path) -> list[int]:
    """The shared connections of this state folder: each is titled with the path of its socket."""
    places = (f"ssh: {home}/ssh/", f"dstack-{digest(os.fsencode(home))[:8]}")
    return [
        pid
        for pid in processes("[mux]")
        if any(place in _title(pid) for place in places) and _title(pid).startswith("ssh: ")
    ]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
