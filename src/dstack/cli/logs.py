"""`dstack logs NAME`: the output so far, or on and on."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store.runs import Stored
    from ..supervise.step import Supervisor

HELP = "print a run's output"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `dstack logs`."""
    add = parser.add_argument
    add("name", metavar="NAME", help="the run")
    add("-f", "--follow", action="store_true", help="go on until the run ends")
    add("--tail", metavar="N", help="the last N lines only")
    add("--since", metavar="TIME", help="what was printed since: 5m, 2h, or 2024-05-01T12:00:00Z")
    add("-t", "--timestamps", action="store_true", help="put the time before each line")


def run(args: argparse.Namespace) -> int:
    """Print it, byte for byte, secrets masked."""
    from ..output.follow import write_all
    from ..output.runlog import RunLog, RunReader
    from ..supervise.build import make_supervisor
    from .show import filter_for

    since = _since(args.since) if args.since else None
    tail = _count(args.tail) if args.tail is not None else None
    supervisor = make_supervisor()
    stored = supervisor.runs.find(args.name)
    supervisor.look(stored, unsaved=True)
    if stored.run.plan.remote is not None:
        _fetch(supervisor, stored, times=args.timestamps or since is not None)
    shown = filter_for(supervisor, stored.run, ports=False)
    log = RunLog(supervisor.home.run(stored.run.id))
    begin = log.start()
    if since is not None:
        begin = log.since(since)
    if tail is not None:
        begin = max(begin, log.tail(tail), key=lambda at: (at.attempt, at.offset))
    reader = RunReader(log, begin, stamped=args.timestamps)
    fd = sys.stdout.fileno()
    while reader.copy_to(fd, shown):
        pass
    if args.follow:
        _follow(supervisor, stored, lambda: reader.copy_to(fd, shown))
    if shown is not None:
        write_all(fd, shown.flush())
    return 0


def _fetch(supervisor: Supervisor, stored: Stored, *, times: bool) -> None:
    from ..supervise.link import fetch
    from ..text import warn

    why = fetch(supervisor, stored.run, times=times)
    if why is not None:
        late = ", and times may be late" if times else ""
        warn(f"this is what is known here; there may be more{late}: {why}")


def _follow(supervisor: Supervisor, stored: Stored, copy: Callable[[], int]) -> None:
    """Copy what comes until the run has ended."""
    if stored.run.plan.remote is not None:
        _follow_far(supervisor, stored, copy)
        return
    next_look = 0.0
    while True:
        now = time.monotonic()
        if now >= next_look:
            supervisor.reload(stored)
            if not supervisor.look(stored).active:
                break
            next_look = now + 0.25
        if not copy():
            time.sleep(0.03)
    while copy():
        pass


def _follow_far(supervisor: Supervisor, stored: Stored, copy: Callable[[], int]) -> None:
    import select

    from ..supervise.link import Link

    link = Link(supervisor, stored.run, copy)
    next_look = 0.0
    try:
        while True:
            now = time.monotonic()
            if now >= next_look:
                supervisor.reload(stored)
                supervisor.look(stored)
                link.looked(stored.run)
                if not stored.run.active and link.finish():
                    break
                next_look = now + 1.0
            if not copy():
                waiter = select.poll()
                for descriptor in link.descriptors():
                    waiter.register(descriptor, select.POLLIN)
                waiter.poll(250)
            if link.turn():
                next_look = 0.0
    finally:
        link.close()
    while copy():
        pass


def _count(text: str) -> int:
    from ..errors import UsageError

    if not text.isdecimal():
        message = f"--tail {text}: expected a number of lines"
        raise UsageError(message)
    return int(text)


def _since(text: str) -> float:
    """Seconds since the epoch. Raises UsageError."""
    from datetime import datetime

    from ..config.quantities import parse_duration
    from ..errors import UsageError

    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        # fromisoformat() knows `Z` only from Python 3.11 on.
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        message = f"--since {text}: expected how long ago (5m, 2h) or a time"
        raise UsageError(message, hint="2024-05-01T12:00:00Z") from None
