"""Rounds of killing while a build is made: there is a whole one afterwards, or none at all."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

from tests.engines.engine import Engine
from tests.faults.container_rounds import ContainerRound, active
from tests.faults.rounds import (
    CHILDREN,
    LINES,
    Round,
    Seen,
    check_end,
    check_output,
    check_starts,
    nothing_left,
    supervisors,
)
from tests.support import Dstack, wait_for, write_files

_FILES = {"in": "in\n", "changed": "before\n", "gone": "1\n"}
_LEFT = """\
mkdir out; for n in 1 2 3 4 5 6 7 8 9; do echo $n >out/$n; done
cat in >out/last; echo after >>changed; rm gone
"""
_SHOW = "cat out/last changed; ls; ls out"
_SHOWN = "in\nbefore\nafter\nchanged\nin\nout\n1\n2\n3\n4\n5\n6\n7\n8\n9\nlast\n"
# Beyond those of any run: what it left is listed, and committed; it has ended; its folder is put
# together, and made known.
_MOMENTS = ("typed", "folder", "claimed", "lines", "lines", "listed", "exit", "aside", "kept")


class BuildRound(Round):
    """A round with `dstack build` or `dstack run --build`, in a process."""

    watch = 0.002
    waits = True
    most_runs = 2
    moments: tuple[str, ...] = _MOMENTS
    more: tuple[str, str] = ("", "")  # what a build does besides, and how it is shown

    def __init__(self, seed: int, side: Path, *rest: Any) -> None:
        super().__init__(seed, side, *rest)
        draw = random.Random(f"build {seed}")
        self.retry = self.setup = self.detached = False
        self.lines = draw.choice((1, 10, 30))
        self.code = draw.choice((0, 0, 0, 0, 3))
        self.by_run = draw.random() < 0.4
        self.moment = draw.choice(self.moments)
        self.after = draw.uniform(0, 0.6 if self.moment == "typed" else 0.05)
        if self.victims == "stop":
            self.lines, self.pace = 30, "sleep 0.03"
        if "supervisor" in self.victims and "cli" not in self.victims:
            # There is none while the command lives.
            self.victims = f"cli+{self.victims}"
        self.known: set[str] = set()

    def args(self) -> list[str]:
        """See Round."""
        return ["run" if self.by_run else "build", ".", "-n", self.name] + (
            ["--build"] if self.by_run else []
        )

    def stop_args(self) -> list[str]:
        """See Round. The name of a build that a run makes is not known before."""
        return ["stop", "-a", "-y", *(["-x"] if self.kill else [])]

    def begin(self, dstack: Dstack) -> None:
        """See Round."""
        self.known = {run["id"] for run in dstack.ps("-a")}

    def order(self) -> list[str]:
        """See Round. Nobody supervises a build in the background before its command is dead."""
        return sorted(super().order(), key=lambda victim: victim != "cli")

    def is_mine(self, run: dict[str, Any]) -> bool:
        """See Round."""
        return run["id"] not in self.known

    def strike(self, dstack: Dstack, victim: str) -> bool:
        """See Round."""
        if victim == "supervisor" and active(dstack):
            # Whoever looks has one started.
            dstack.ok("ps")
        return super().strike(dstack, victim)

    def reached(self, dstack: Dstack, before: set[Path], cli: subprocess.Popen[bytes]) -> bool:
        """See Round."""
        if self.moment == "typed" or cli.poll() is not None:
            return True
        new = set(dstack.home.glob("runs/*")) - before
        # The build's, should its run be there already.
        job = min(new, key=lambda path: path.stat().st_ctime) / "1" if new else None
        if job is None:
            return False
        if self.moment == "aside":
            if any(dstack.home.glob("builds/.new-*")):
                return True
        elif self.moment == "exit":
            if (job / "exit").exists():
                return True
        elif self.moment != "kept" and (job / "exit").exists():
            return True
        if self.moment == "kept" or (dstack.home / "builds" / job.parent.name).exists():
            return (dstack.home / "builds" / job.parent.name).exists()
        if self.moment == "listed":
            return (job / "build.read").exists()
        if self.moment == "commit":
            return (job / "commit").exists()
        if self.moment == "lines":
            return self.counted() >= self.part * self.lines
        return self.moment == "folder" or (
            self.moment == "claimed" and os.path.lexists(job / "pid")
        )

    def task(self) -> str:
        """See Round. Each round's build differs from the others' of its state folder."""
        side, more = self.settings()
        does, shows = self.more
        script = (
            f"n={self.lines}; [ ! -e {side}/quick ] || n=0\n"
            + CHILDREN[self.children].format(token=self.token)
            + "\n"
            + LINES.format(side=side, lines="$n", pace=self.pace)
            + f"{_LEFT}{does}\nexit {self.code}"
        )
        body = "".join(f"    {line}\n" for line in script.split("\n"))
        return f"type: task\n{more}build:\n  - |\n{body}commands: ['{_SHOW}{shows}']\n"

    def shows(self) -> str:
        """What a run prints that starts from the build."""
        return _SHOWN

    def judge(self, dstack: Dstack, folder: Path, seen: Seen) -> None:
        """See Round."""
        mine = [run for run in seen.runs if run["stage"] == "build"]
        others = [run for run in seen.runs if run["stage"] != "build"]
        kept = self._kept(dstack)
        assert len(mine) <= 1, f"two builds: {mine}"
        if not mine:
            assert "cli" in seen.hit, (self.side / "said").read_text()
            assert not (self.truth / "starts").exists()
        for run in mine:
            check_output(dstack, self, run, None if self.by_run else seen.shown, seen.code)
            check_end(self, run, seen.hit, seen.stopped)
            check_starts(self, run)
            assert (run["status"] == "done") == (run["id"] in kept), f"{run}, but kept: {kept}"
            if run["status"] != "done" and seen.code != -9:
                assert seen.code == run["exit_code"]
        assert not others or (self.by_run and mine and mine[0]["status"] == "done")
        for run in others:
            self._check_run(dstack, run, seen)
        self._next_works(dstack, folder, bool(mine) and mine[0]["id"] in kept)
        for run_id in [*(str(run["id"]) for run in seen.runs), None]:
            nothing_left(dstack, self, run_id)
        self._kept(dstack)

    def _kept(self, dstack: Dstack) -> set[str]:
        """The ids of the builds that are there; beside them nothing of any build may be."""
        found = {build["id"] for build in json.loads(dstack.ok("builds", "--json"))}
        folder = dstack.home / "builds"
        there = set(os.listdir(folder)) - {"lock"} if folder.exists() else set()
        assert there == found, f"half a build: {there - found}, or one without files"
        images, wanted = self.images(dstack), self.images_of(found)
        assert images == wanted, f"the engine has the images {images}, of the builds {wanted}"
        return found

    def images(self, dstack: Dstack) -> set[str]:
        """The images of this state folder's builds that the engine has."""
        return set()

    def images_of(self, builds: set[str]) -> set[str]:
        """Those that it must have."""
        return set()

    def _check_run(self, dstack: Dstack, run: dict[str, Any], seen: Seen) -> None:
        """The run that `run --build` went on with."""
        log = dstack.raw("logs", str(run["name"])).stdout.decode()
        ends = {("done", 0), ("stopped", 143), ("stopped", 137), ("failed", 137), *self.bad_ends()}
        assert (run["status"], run["exit_code"]) in ends, run
        if run["status"] == "done":
            assert log == self.shows()
        else:
            assert seen.stopped or seen.hit & self.fatal, run
            assert self.shows().startswith(log) or self.bad_ends()

    def bad_ends(self) -> set[tuple[str, int]]:
        """More of them, after what was done to the engine."""
        return {(status, code) for status, _, code in self.more_ends}

    def _next_works(self, dstack: Dstack, folder: Path, kept: bool) -> None:
        """The next build is made, or is that which is there; a run starts from it."""
        if self.truth.exists():
            (self.truth / "quick").touch()
        done = dstack("build", ".", cwd=folder)
        assert done.returncode == self.code, done.stderr
        assert (" fits; " in done.stderr) == kept, done.stderr
        if self.code == 0:
            again = dstack.ok("run", ".", "-n", f"{self.name}-after", cwd=folder)
            assert again == self.shows()


class ContainerBuildRound(BuildRound, ContainerRound):
    """The same in a container, whose build is an image."""

    moments = (*_MOMENTS, "commit", "commit")
    more = ("echo image >/made", "; cat /made")

    def __init__(self, seed: int, side: Path, engine: Engine, home: Path) -> None:
        super().__init__(seed, side, engine, home)
        if engine.name == "podman" and "client" in self.victims:
            self.moment = "lines"  # see ContainerRound

    @property
    def more_ends(self) -> tuple[tuple[str, str, int], ...]:  # type: ignore[override]
        """See Round. Without its container, or its client, there may be no image to be made."""
        apart = {"removed", "client"} & set(self.victims.split("+"))
        return (("failed", "start_failed", 125),) if apart else ()

    def shows(self) -> str:
        """See BuildRound."""
        return f"{_SHOWN}image\n"

    def images(self, dstack: Dstack) -> set[str]:
        """See BuildRound."""
        runs = {path.name for path in dstack.home.glob("runs/*")}
        names = self.engine.cli("images", "--format", "{{.Repository}}:{{.Tag}}").split()
        found = {name.partition("dstack-build:")[2] for name in names}
        return found & runs

    def images_of(self, builds: set[str]) -> set[str]:
        """See BuildRound."""
        return builds


def projects(folder: Path) -> None:
    """The files that a build reads, changes and deletes."""
    write_files(folder, _FILES)


def none_left(dstack: Dstack) -> None:
    """Delete all builds; nothing of them may be left."""
    dstack.ok("prune", "builds", "-y")
    folder = dstack.home / "builds"
    wait_for(lambda: os.listdir(folder) == ["lock"], "the builds to be gone")
    assert not supervisors(dstack)
