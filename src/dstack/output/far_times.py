"""When a run on another machine printed what: `log.idx` there, `far.idx` beside the log here."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..hosts.base import Host
from ..hosts.clocks import shift_of
from .mirror import WHOLE
from .times import FAR, INDEX, parse_index

_TIMEOUT = 60.0  # an index is some hundred kilobytes a day
_SECOND = 1000

# Its clock, the log's last byte and length, the index. The locale decides about decimal points.
_SCRIPT = """LC_ALL=C; export LC_ALL; cd "$1" || exit 0
date +%s; stat -c '%.3Y %s' log || echo; cat INDEX; :""".replace("INDEX", INDEX)


def knows_times(here: Path) -> bool:
    """Whether `fetch_times` has been here since the job ended; `here` as in Mirror."""
    try:
        return (here / FAR).stat().st_mtime_ns >= (here / WHOLE).stat().st_mtime_ns
    except OSError:
        return False


def fetch_times(host: Host, there: Path, here: Path) -> None:
    """Ask the host; `there` and `here` as in Mirror. Raises HostError.

    What a full disk does not take is left: an index is a convenience.
    """
    argv = ["/bin/sh", "-c", f"{{ {_SCRIPT}\n}} 2>/dev/null", "sh", os.fspath(there)]
    before = time.time()
    said = host.query(argv, f"cannot read {there / INDEX}", timeout=_TIMEOUT)
    lines = _by_our_clock(said, before, time.time())
    aside = here / f".{FAR}.{os.getpid()}"
    try:
        aside.write_bytes(lines)
        aside.rename(here / FAR)
    except OSError:
        aside.unlink(missing_ok=True)


def _by_our_clock(said: bytes, before: float, after: float) -> bytes:
    """The lines of the index, when it was asked between these two times of this machine's clock."""
    clock, _, rest = said.partition(b"\n")
    last, _, index = rest.partition(b"\n")
    theirs = int(clock) if clock.isdigit() else int(before)
    shift = shift_of(theirs, before, after)
    samples = parse_index(index + _milliseconds(last))
    moved = [(max(0, at + int(shift * _SECOND)), offset) for at, offset in samples]
    return b"".join(b"%d %d\n" % sample for sample in moved)


def _milliseconds(last: bytes) -> bytes:
    """`SECONDS[.FRACTION] LENGTH`, as stat says it, as a line of the index."""
    at, _, length = last.partition(b" ")
    seconds, _, fraction = at.partition(b".")
    return seconds + (fraction + b"000")[:3] + b" " + length + b"\n"
