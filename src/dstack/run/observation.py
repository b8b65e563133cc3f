"""What an engine can see of a job, and which event that is. Pure."""

from __future__ import annotations

import msgspec

from ..errors import HostError, HostRefused
from .events import Began, Ended, Event, Reached, Started, Unreachable, Vanished
from .model import Exit, Run


class Waiting(msgspec.Struct, frozen=True):
    """The engine has it, but has not started it."""

    why: str


class Absent(msgspec.Struct, frozen=True):
    """The engine knows of no start. `folder`: its job folder is there, ready to be started."""

    folder: bool = False


class Preparing(msgspec.Struct, frozen=True):
    """The environment is being made or `setup` runs; `keeper` as in Running."""

    step: str
    keeper: str | None = None


class Running(msgspec.Struct, frozen=True):
    """The commands run; `keeper` is `PID:STARTED:BOOT`, of a process that can be waited for."""

    keeper: str | None = None
    since: float | None = None
    image_id: str | None = None


class Exited(msgspec.Struct, frozen=True):
    """It has ended."""

    exit: Exit


class Unknown(msgspec.Struct, frozen=True):
    """It cannot be known now. Never finished. `away`: the host itself does not answer.

    `asks`: since somebody would have to type something (as in HostRefused).
    """

    why: str
    away: bool = False
    asks: bool = False


Observation = Waiting | Absent | Preparing | Running | Exited | Unknown


def unknown_of(error: HostError) -> Unknown:
    """What is seen of a host that does not do as asked."""
    if isinstance(error, HostRefused):
        return Unknown(error.message, away=True, asks=error.asks)
    return Unknown(error.message, away=error.transient)


def unreachable(run: Run, seen: Unknown, now: float) -> Unreachable | None:
    """That it cannot be known, and why; None when that is known already."""
    why = seen.why
    if seen.asks:
        # Nobody can answer in the background, and all share the connection that is made there.
        how = f"run `dstack attach {run.name}` in a terminal"
        why = f"{run.plan.backend} may need a password: {how}"
    if run.unknown_since is not None and run.unknown_why == why:
        return None
    return Unreachable(now, why)


def event_of(run: Run, attempt: int, seen: Observation, now: float, *, held: bool) -> Event | None:
    """The event that `seen` means for attempt number `attempt`; None when it is nothing new.

    `held`: the caller holds the run's lease, so that no start can be under way elsewhere.
    """
    if isinstance(seen, Unknown):
        return unreachable(run, seen, now)
    if isinstance(seen, Absent):
        if not held or run.status == "submitted":
            return None
        if seen.folder:
            # Its keeper may be on its way; it is started again, not given up. One that shall stop
            # finds the order in its folder, runs nothing, and says that it ended.
            return None if attempt <= len(run.attempts) else Started(now, attempt)
        return Vanished(now)
    if attempt > len(run.attempts):
        # It was started and whoever did so died before the record.
        return Started(now, attempt)
    if isinstance(seen, Exited):
        return Ended(now, seen.exit)
    if run.unknown_since is not None:
        return Reached(now)
    if isinstance(seen, Running) and run.status == "preparing":
        return Began(now if seen.since is None else seen.since, seen.image_id)
    return None
