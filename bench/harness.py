"""Measuring two things side by side, and the table of what came out.

A bench is a module of this folder with `measure(context) -> Iterable[Row]`. Everything is measured
against the installed wheel with compiled bytecode; A and B take turns, so that a busy moment of
the machine hits both; figures are medians.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table. `goal` bounds `ours / theirs`, or `ours` where `theirs` is None."""

    name: str
    ours: float
    theirs: float | None
    unit: str  # "ms", "MB/s", "MB", "%"
    goal: float
    at_least: bool = False  # the goal is a lower bound
    note: str = ""

    @property
    def value(self) -> float:
        """What the goal bounds."""
        return self.ours / self.theirs if self.theirs else self.ours

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal


class Context:
    """What benches work with: the installed command, its Python, and a scratch folder."""

    def __init__(self, binary: Path, python: Path, scratch: Path) -> None:
        self.binary = str(binary)
        self.python = str(python)
        self.scratch = scratch

    def folder(self, name: str) -> Path:
        """A new folder below the scratch folder."""
        path = self.scratch / name
        path.mkdir(parents=True)
        return path

    def env(self, home: Path, **extra: str) -> dict[str, str]:
        """The command's environment with its state in `home`."""
        foreign = ("DSTACK_", "PYTHON", "VIRTUAL_ENV")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        return {**kept, "DSTACK_HOME": str(home), **extra}

    def dstack(self, home: Path, *args: str, cwd: Path | None = None) -> str:
        """Run the command to its end and insist on exit code 0; its stdout."""
        done = subprocess.run(
            [self.binary, *args],
            cwd=cwd or self.scratch,
            env=self.env(home),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(
                f"dstack {' '.join(args)} exited with {done.returncode}: {done.stderr}"
            )
        return done.stdout


def timed(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: Path = Path(os.devnull),
    code: int | None = 0,
) -> float:
    """Seconds from starting `argv` to its end; insists on the exit code unless it is None."""
    with stdout.open("wb") as out:
        begin = time.perf_counter()
        # close_fds=False lets subprocess use vfork: the least that starting a program costs.
        process = subprocess.Popen(
            argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.PIPE, close_fds=False,
        )  # fmt: skip
        _, said = process.communicate()
        spent = time.perf_counter() - begin
    if code is not None and process.returncode != code:
        raise RuntimeError(f"{argv} exited with {process.returncode}: {said.decode()}")
    return spent


def side_by_side(
    ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int = 15
) -> tuple[float, float]:
    """Medians of both, taking turns, after one unmeasured round of each."""
    ours()
    theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


_FILLED = 4  # GB: a log, its copy on another machine's account, a file of either, and some more


def at_hand() -> None:
    """Have memory for files at hand, and nothing that is still to be written to the disk.

    Call it before what fills the page cache, ours and theirs. A virtual machine gets memory from
    its hypervisor when it touches it first, and gives back what it freed: writing a GB of files
    took 0.25 s of processor with memory that was there, and 1.2 s with memory that had to be got.
    Whoever fills more files, or comes later, would be charged for the other's share.
    """
    os.sync()
    filling = f"[bytearray(b'x') * (1 << 28) for _ in range({_FILLED * 4})]"
    subprocess.run([sys.executable, "-c", filling], check=True)


def floor(context: Context) -> float:
    """Seconds of `python -c pass`: the least that a command in Python costs."""
    return timed([context.python, "-c", "pass"])


class Processes:
    """The processes of one state folder, told apart from the commands that its runs run."""

    def __init__(self, home: Path, foreign: Sequence[str]) -> None:
        self.home = home
        self.foreign = foreign  # names of the programs that are the runs' own

    def ours(self) -> list[Path]:
        """`/proc/PID` of each process of dstack's."""
        runs = self.home / "runs"
        ids = [run.name.encode() for run in runs.glob("*")]
        marks = {b"DSTACK_RUN_ID=" + run_id for run_id in ids}
        marks.add(f"DSTACK_HOME={self.home}".encode())
        keepers = {run_id + b"-" for run_id in ids}
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
                name = (entry / "comm").read_text().strip()
            except OSError:
                continue
            # Keepers have no run's environment, only the name of their job: `:ID-ATTEMPT:`.
            job = next((v[12:] for v in environ if v.startswith(b"DSTACK_JOB=:")), b"")
            known = marks.intersection(environ) or job[: job.rfind(b"-") + 1] in keepers
            if name not in self.foreign and known:
                found.append(entry)
        return found

    def seconds(self) -> float:
        """Processor time that they have used so far, their waited-for children included."""
        total = 0
        for entry in self.ours():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += sum(map(int, fields[11:15]))
        return total / os.sysconf("SC_CLK_TCK")

    def memory(self) -> dict[str, tuple[int, float]]:
        """By program: how many, and their memory in MB, with what they share counted once (PSS)."""
        found: dict[str, tuple[int, float]] = {}
        for entry in self.ours():
            try:
                name = (entry / "comm").read_text().strip()
                lines = (entry / "smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            pss = next((int(x.split()[1]) for x in lines if x.startswith("Pss:")), 0) / 1024
            count, size = found.get(name, (0, 0.0))
            found[name] = (count + 1, size + pss)
        return found


def table(rows: Iterable[Row]) -> str:
    """The rows as text, in columns."""
    lines = [("measure", "ours", "theirs", "ratio", "goal", "", "")]
    for row in rows:
        bound = "≥" if row.at_least else "≤"
        ratio = f"{row.value:.2f}" if row.theirs else "-"
        unit = "" if row.theirs else f" {row.unit}"
        lines.append((
            row.name,
            f"{row.ours:.1f} {row.unit}",
            f"{row.theirs:.1f} {row.unit}" if row.theirs else "-",
            ratio,
            f"{bound} {row.goal:g}{unit}",
            "ok" if row.reached else "SHORT",
            row.note,
        ))  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    padded = (
        "  ".join(c.ljust(w) for c, w in zip(line, (*widths, 0), strict=True)) for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)
