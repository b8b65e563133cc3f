"""What to do next with a run, derived from what is persisted and nothing else. Pure."""

from __future__ import annotations

import msgspec

from .model import Run
from .states import RETRY_DELAYS

# Seconds that `max_duration` may be overrun before the supervisor steps in for job.sh's own timer.
OVERRUN = 30.0
# Seconds between SIGTERM and SIGKILL, as `docker stop` has it.
GRACE = 10.0


class Start(msgspec.Struct, frozen=True):
    """Start attempt number `attempt`."""

    attempt: int


class Wait(msgspec.Struct, frozen=True):
    """Do nothing before `until` (seconds since the epoch)."""

    until: float


class Poll(msgspec.Struct, frozen=True):
    """Look at attempt number `attempt`."""

    attempt: int


class Stop(msgspec.Struct, frozen=True):
    """End attempt number `attempt`, then look at it. `kill`: with SIGKILL, at once."""

    attempt: int
    kill: bool
    overrun: bool = False  # because of max_duration, not because somebody asked


Action = Start | Wait | Poll | Stop | None


def next_action(run: Run, now: float) -> Action:
    """The next thing to do; None when the run has ended."""
    attempt = run.attempt
    if run.status == "submitted":
        # A retry is never more than the longest delay away: if it is, the clock was moved back.
        if run.retry_at is not None and now < run.retry_at <= now + RETRY_DELAYS[-1]:
            return Wait(run.retry_at)
        return Start(len(run.attempts) + 1)
    if run.status == "stopping":
        # An attempt that has ended was the one before; the next may have been started unrecorded.
        number = len(run.attempts) + (1 if attempt is None or attempt.exit is not None else 0)
        overdue = run.stop_at is not None and now > run.stop_at + GRACE + 5
        return Stop(max(number, 1), kill=run.stop_kill or overdue)
    if run.status in ("preparing", "running") and attempt is not None:
        limit = run.plan.max_duration
        begun = attempt.running_at
        if limit is not None and begun is not None and now > begun + limit + OVERRUN:
            return Stop(attempt.number, kill=False, overrun=True)
        return Poll(attempt.number)
    return None
