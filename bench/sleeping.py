"""Five hundred runs that sleep: what dstack itself uses meanwhile."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from bench.harness import Context, Processes, Row

RUNS = 500
SECONDS = 20.0
TIMERS = 40.0  # until the last one has handed its job's max_duration over


def measure(context: Context) -> Iterable[Row]:
    """Processor time over 20 s and memory, once all of them have run for half a minute.

    The shell that runs a run's commands is the run's own, as its `sleep` is.
    """
    home = context.folder("sleeping-home")
    folder = context.folder("sleeping")
    (folder / ".dstack.yml").write_text("type: task\ncommands: [sleep 3600]\n")
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: context.dstack(home, "run", str(folder), "-d"), range(RUNS)))
        deadline = time.monotonic() + 120
        while True:
            runs = json.loads(context.dstack(home, "ps", "-a", "--json"))
            running = sum(run["status"] == "running" for run in runs)
            if running == RUNS or time.monotonic() > deadline:
                break
            time.sleep(1)
        time.sleep(TIMERS)
        processes = Processes(home, ["sleep", "bash"])
        before = processes.seconds()
        time.sleep(SECONDS)
        share = (processes.seconds() - before) / SECONDS * 100
        memory = processes.memory()
        others = Counter(run["status"] for run in runs if run["status"] != "running")
        note = f"{running} run {dict(others) or ''}; " + ", ".join(
            f"{count} {name} {size:.0f} MB" for name, (count, size) in sorted(memory.items())
        )
        yield Row("500 sleeping runs, processor", share, None, "% of a core", 5)
        total = sum(size for _, size in memory.values())
        yield Row("500 sleeping runs, memory", total, None, "MB", 60, note=f"PSS; {note}")
    finally:
        context.dstack(home, "stop", "-a", "-x")
