"""From the end of the job to the end of the attached command."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterable

from bench.harness import Context, Row


def measure(context: Context) -> Iterable[Row]:
    """The job's last act is to print the time; the command's end is seen by who waits for it."""
    home = context.folder("latency-home")
    folder = context.folder("latency")
    (folder / ".dstack.yml").write_text("type: task\ncommands: [sleep 0.3, date +%s%N]\n")
    spent = []
    for _ in range(21):
        done = subprocess.run(
            [context.binary, "run", "."],
            cwd=folder,
            env=context.env(home),
            capture_output=True,
            check=True,
        )
        spent.append((time.time_ns() - int(done.stdout)) / 1e6)
    worst = f"slowest {max(spent):.0f} ms"
    yield Row("end of job to end of command", statistics.median(spent), None, "ms", 30, note=worst)
