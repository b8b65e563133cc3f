"""Masking and rewriting a run's output, against reading and writing it unchanged."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from bench.harness import Context, Row, side_by_side
from dstack.output.filter import make_filter
from dstack.output.follow import LogReader

SIZE = 256_000_000
SECRETS = ("hunter2-hunter2", "ghp_0123456789abcdef0123456789abcdef")
PORTS = ((8000, 3333), (6006, 6007))
PLAIN = b"epoch 17 step 4711 loss 0.1234 lr 3e-4 tokens/s 18231 heap 81%\n"
MATCHING = b"GET http://0.0.0.0:8000/items?token=hunter2-hunter2 200 in 12 ms by worker 3\n"
NOTHING: tuple[()] = ()


def copy(log: Path, secrets: Sequence[str], ports: Sequence[tuple[int, int]]) -> float:
    """Seconds to show all of `log`."""
    reader, out = LogReader(log), os.open("/dev/null", os.O_WRONLY)
    shown = make_filter(secrets, ports)
    begun = time.perf_counter()
    while reader.copy_to(out, shown):
        pass
    seconds = time.perf_counter() - begun
    os.close(out)
    reader.close()
    return seconds


def unchanged(log: Path) -> float:
    """Seconds to read and write it in the same pieces."""
    source, out = os.open(log, os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
    begun = time.perf_counter()
    while data := os.read(source, 256 << 10):
        os.write(out, data)
    seconds = time.perf_counter() - begun
    os.close(source)
    os.close(out)
    return seconds


def measure(context: Context) -> Iterable[Row]:
    """Text with and without matches, through secrets, ports and both."""
    log = context.folder("filter") / "log"
    for line, name, secrets, ports, goal in (
        (PLAIN, "2 secrets, no match", SECRETS, NOTHING, 300),
        (PLAIN, "2 ports, no match", NOTHING, PORTS, 300),
        (PLAIN, "both, no match", SECRETS, PORTS, 300),
        (MATCHING, "both match in each line", SECRETS, PORTS, 20),
    ):
        log.write_bytes(line * (SIZE // len(line)))
        a, b = side_by_side(partial(copy, log, secrets, ports), partial(unchanged, log), rounds=3)
        note = f"unchanged: {SIZE / b / 1e6:.0f}"
        yield Row(f"shown: {name}", SIZE / a / 1e6, None, "MB/s", goal, at_least=True, note=note)
    log.unlink()
