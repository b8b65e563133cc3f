"""Waiting for runs that were told to stop."""

from __future__ import annotations

import time

from ..run.next import GRACE
from ..store.runs import Stored
from ..supervise.spawn import ensure_background
from ..supervise.step import Supervisor
from ..text import say

# Seconds past SIGKILL before a run is left to the background supervisor.
_PATIENCE = GRACE + 10.0
# Seconds before it is said what is waited for.
_SILENT = 3.0


def wait_ended(supervisor: Supervisor, waiting: list[Stored]) -> list[Stored]:
    """Look after the runs until they have ended; those that have not in time.

    A run whose lease is free is ours to look after; a run that somebody else holds is watched,
    and what is plain to see is recorded, should its holder be asleep.
    """
    begun = time.monotonic()
    told = False
    left = list(waiting)
    pause = 0.01
    while left:
        for stored in list(left):
            if supervisor.leases.take(stored.seq):
                supervisor.reload(stored)
                supervisor.step(stored)
            else:
                supervisor.reload(stored)
                supervisor.look(stored)
            if not stored.run.active:
                left.remove(stored)
                supervisor.leases.drop(stored.seq)
        waited = time.monotonic() - begun
        if not left or waited > _PATIENCE:
            break
        if waited > _SILENT and not told:
            say(f"waiting for {', '.join(stored.run.name for stored in left)} to end")
            told = True
        if all(_away(stored) for stored in left):
            break  # whoever answers again is told in the background
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
    for stored in left:
        supervisor.leases.drop(stored.seq)
    if left:
        ensure_background(supervisor.home, supervisor.leases)
    return left


def _away(stored: Stored) -> bool:
    return stored.run.plan.remote is not None and stored.run.unknown_since is not None
