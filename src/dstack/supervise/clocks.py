"""What is seen of a job on another machine, whose clock may be any, in times of this one's."""

from __future__ import annotations

import msgspec

from ..errors import HostError
from ..hosts.base import Host
from ..hosts.clocks import ask_shift
from ..run.model import Run
from ..run.observation import Exited, Observation, Running

# Seconds after a job's end in which it is noticed where somebody watches.
_NOTICED = 5.0


def in_our_time(seen: Observation, run: Run, host: Host | None, now: float) -> Observation:
    """Without the times of that clock: limits are of ours, and so is when a job ended."""
    if isinstance(seen, Running):
        return msgspec.structs.replace(seen, since=None)
    if isinstance(seen, Exited):
        at = _ended_at(run, seen.exit.at, host, now)
        return Exited(msgspec.structs.replace(seen.exit, at=at))
    return seen


def _ended_at(run: Run, theirs: float | None, host: Host | None, now: float) -> float | None:
    """When a job ended that has on that host; None: just now."""
    if host is None or theirs is None or abs(now - theirs) < _NOTICED:
        return None
    # Nobody looked for a while, or could; or the clocks differ.
    try:
        at = theirs + ask_shift(host)
    except HostError:
        return None
    attempt = run.attempt
    if attempt is None:
        return min(at, now)  # who started it could not record that any more
    began = attempt.running_at or attempt.started_at
    return min(at if began is None else max(at, began), now)
