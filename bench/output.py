"""One gigabyte of a run's output."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.harness import Context, Processes, Row, at_hand, side_by_side, timed

SIZE = 1_000_000_000
COMMAND = f"yes 'epoch 17 step 4711 loss 0.1234 at http://127.0.0.1:6006/' | head -c {SIZE}"


class Peak(threading.Thread):
    """The most memory (RSS, MB) that dstack's processes had together, looked at every 50 ms."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(daemon=True)
        self.processes = processes
        self.most = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self.over.wait(0.05):
            total = 0
            for entry in self.processes.ours():
                try:
                    total += int((entry / "statm").read_text().split()[1]) * page
                except OSError:
                    continue
            self.most = max(self.most, total / 1e6)


def same(a: Path, b: Path) -> bool:
    """Whether both files hold the same bytes."""
    return subprocess.run(["cmp", "-s", a, b], check=False).returncode == 0


def measure(context: Context) -> Iterable[Row]:
    """`dstack run . > file` against `sh -c CMD | cat > file`."""
    home = context.folder("output-home")
    folder = context.folder("output")
    (folder / ".dstack.yml").write_text(f"type: task\ncommands:\n  - {COMMAND}\n")
    ours, theirs = context.scratch / "ours.out", context.scratch / "theirs.out"

    def run() -> float:
        # The log of the last round would only fill the disk.
        context.dstack(home, "rm", "-a", "-y")
        at_hand()
        return timed([context.binary, "run", "."], cwd=folder, env=context.env(home), stdout=ours)

    def plain() -> float:
        at_hand()
        return timed(["sh", "-c", f'sh -c "{COMMAND}" | cat'], stdout=theirs)

    a, b = side_by_side(run, plain, rounds=3)
    equal = "equal bytes" if same(ours, theirs) else "BYTES DIFFER"
    speed: Callable[[float], float] = lambda seconds: SIZE / seconds / 1e6  # noqa: E731
    yield Row("1 GB of output", speed(a), speed(b), "MB/s", 0.6, at_least=True, note=equal)

    peak = Peak(Processes(home, ["yes", "head"]))
    peak.start()
    run()
    peak.over.set()
    peak.join()
    yield Row("memory meanwhile", peak.most, None, "MB", 60, note="RSS, all our processes")
    context.dstack(home, "rm", "-a", "-y")
    ours.unlink()
    theirs.unlink()
