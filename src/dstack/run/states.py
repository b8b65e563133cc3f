"""THE table of states and events. Nothing else writes a state.

`apply(run, event)` gives the run after the event, or raises IllegalEvent and changes nothing.
Pure: times come with the events. The diagram in docs/reference/runs.md is drawn from `TABLE`
by `diagram()`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..errors import DstackError
from .events import (
    Began,
    Ended,
    Event,
    Reached,
    Restarted,
    Started,
    StartFailed,
    StopRequested,
    Unreachable,
    Vanished,
)
from .model import Attempt, Exit, Reason, Run, Status
from .story import describe

# Seconds before the second, third, ... attempt; the last one repeats.
RETRY_DELAYS = (1.0, 5.0, 15.0, 30.0, 60.0)

_RETRIED_AS: dict[Reason, str] = {
    "command_failed": "error",
    "setup_failed": "error",
    "oom": "error",
    "killed": "interruption",
    "host_restarted": "interruption",
    "no_capacity": "no-capacity",
}


class IllegalEvent(DstackError):
    """The event cannot happen to a run in this state; carries the run's story."""

    def __init__(self, run: Run, event: Event) -> None:
        name = type(event).__name__
        super().__init__(
            f"run {run.name} ({run.id}, version {run.version}) is {run.status}, "
            f"attempt {len(run.attempts)}: {name} cannot happen to it"
        )
        self.run = run
        self.event = event


def _attempt(run: Run, **changes: object) -> tuple[Attempt, ...]:
    """The attempts, with the last one changed."""
    return (*run.attempts[:-1], msgspec.structs.replace(run.attempts[-1], **changes))


def _change(run: Run, **changes: object) -> Run:
    return msgspec.structs.replace(run, **changes)


def _started(run: Run, event: Started) -> Run:
    if event.attempt != len(run.attempts) + 1:
        raise IllegalEvent(run, event)
    return _change(
        run,
        status="stopping" if run.status == "stopping" else "preparing",
        attempts=(*run.attempts, Attempt(number=event.attempt, started_at=event.at)),
        started_at=run.started_at if run.started_at is not None else event.at,
        retry_at=None,
        waiting=None,
        unknown_since=None,
    )


def _began(run: Run, event: Began) -> Run:
    attempts = _attempt(run, running_at=event.at, image_id=event.image_id)
    return _change(run, status="running", attempts=attempts, unknown_since=None)


def _stop(run: Run, event: StopRequested) -> Run:
    return _change(
        run,
        status="stopping",
        stop_at=event.at if run.stop_at is None else run.stop_at,
        stop_kill=run.stop_kill or event.kill,
        stop_code=event.code if run.stop_code is None else run.stop_code,
        retry_at=None,
        waiting=None,
    )


def _finish(run: Run, at: float, status: Status, end: Exit) -> Run:
    code = end.code
    if status == "stopped" and run.stop_code is not None:
        code = run.stop_code
    return _change(
        run,
        status=status,
        finished_at=at,
        reason=end.reason,
        message=describe(run.plan, end),
        exit_code=code,
        signal=end.signal,
        oom=end.oom,
        retry_at=None,
        waiting=None,
        unknown_since=None,
    )


def _may_retry(run: Run, at: float, reason: Reason) -> bool:
    retry = run.plan.retry
    if retry is None or run.status == "stopping":
        return False
    since = run.restarted_at if run.restarted_at is not None else run.submitted_at
    # A clock that was moved back must not make the window endless: attempts bound it as well.
    tries = len(run.attempts) - run.first + 1
    soonest = sum(RETRY_DELAYS[min(i, len(RETRY_DELAYS) - 1)] for i in range(max(tries - 1, 0)))
    within = at < since + retry.duration and soonest < retry.duration
    return within and _RETRIED_AS.get(reason) in retry.on_events


def _again(run: Run, at: float, why: str) -> Run:
    tries = max(len(run.attempts) - run.first + 1, 1)
    delay = RETRY_DELAYS[min(tries - 1, len(RETRY_DELAYS) - 1)]
    again = _retry_at(run, at, delay)
    return _change(run, status="submitted", retry_at=again, waiting=why, unknown_since=None)


def _retry_at(run: Run, at: float, delay: float) -> float:
    """When the next attempt starts: after `delay`, but not when the window has closed."""
    since = run.restarted_at if run.restarted_at is not None else run.submitted_at
    closes = since + run.plan.retry.duration if run.plan.retry is not None else at
    return min(at + delay, max(closes, at))


def _ended(run: Run, event: Ended) -> Run:
    end = event.exit
    at = end.at if end.at is not None else event.at
    run = _change(run, attempts=_attempt(run, exit=end))
    if end.reason == "completed":
        return _finish(run, at, "done", end)
    if end.reason == "stopped" or (run.status == "stopping" and end.reason == "killed"):
        return _finish(run, at, "stopped", msgspec.structs.replace(end, reason="stopped"))
    if _may_retry(run, at, end.reason):
        return _again(run, event.at, describe(run.plan, end))
    return _finish(run, at, "failed", end)


def _start_failed(run: Run, event: StartFailed) -> Run:
    if run.status == "submitted" and _may_retry(run, event.at, event.reason):
        # No attempt came about by which the delay could grow.
        again = _retry_at(run, event.at, RETRY_DELAYS[-1] / 4)
        return _change(run, retry_at=again, waiting=event.message)
    end = Exit(code=125, reason=event.reason, detail=event.message)
    if run.status == "stopping":
        return _finish(run, event.at, "stopped", Exit(code=143, signal=15, reason="stopped"))
    return _finish(run, event.at, "failed", end)


def _vanished(run: Run, event: Vanished) -> Run:
    if run.status == "stopping":
        end = Exit(code=143, signal=15, reason="stopped", at=event.at)
        if run.attempts and run.attempts[-1].exit is None:
            run = _change(run, attempts=_attempt(run, exit=end))
        return _finish(run, event.at, "stopped", end)
    detail = "its job folder was deleted while it ran"
    end = Exit(code=137, signal=9, reason="killed", detail=detail, at=event.at)
    return _ended(run, Ended(at=event.at, exit=end))


def _unreachable(run: Run, event: Unreachable) -> Run:
    since = event.at if run.unknown_since is None else run.unknown_since
    return _change(run, unknown_since=since, unknown_why=event.why)


def _reached(run: Run, event: Reached) -> Run:
    del event
    return _change(run, unknown_since=None)


def _restarted(run: Run, event: Restarted) -> Run:
    return _change(
        run,
        status="submitted",
        restarted_at=event.at,
        first=len(run.attempts) + 1,
        ports=event.ports,
        started_at=None,
        finished_at=None,
        reason=None,
        message=None,
        exit_code=None,
        signal=None,
        oom=False,
        stop_at=None,
        stop_kill=False,
        stop_code=None,
    )


Move = tuple[Callable[..., Run], frozenset[Status]]
_ANY_END: tuple[Status, ...] = ("done", "failed", "stopped")


def _move(change: Callable[..., Run], *leads_to: Status) -> Move:
    return change, frozenset(leads_to)


# (state, event) -> what it does, and the states it may lead to. What is not here is illegal.
TABLE: dict[tuple[Status, type], Move] = {
    ("submitted", Started): _move(_started, "preparing"),
    ("submitted", StopRequested): _move(_stop, "stopping"),
    ("submitted", StartFailed): _move(_start_failed, "submitted", "failed"),
    ("submitted", Unreachable): _move(_unreachable, "submitted"),
    ("submitted", Reached): _move(_reached, "submitted"),
    ("preparing", Began): _move(_began, "running"),
    ("preparing", StopRequested): _move(_stop, "stopping"),
    ("preparing", Ended): _move(_ended, "submitted", *_ANY_END),
    ("preparing", Vanished): _move(_vanished, "submitted", "failed"),
    ("preparing", Unreachable): _move(_unreachable, "preparing"),
    ("preparing", Reached): _move(_reached, "preparing"),
    ("running", StopRequested): _move(_stop, "stopping"),
    ("running", Ended): _move(_ended, "submitted", *_ANY_END),
    ("running", Vanished): _move(_vanished, "submitted", "failed"),
    ("running", Unreachable): _move(_unreachable, "running"),
    ("running", Reached): _move(_reached, "running"),
    # A start that was under way when somebody asked to stop is recorded, and then stopped.
    ("stopping", Started): _move(_started, "stopping"),
    ("stopping", StartFailed): _move(_start_failed, "stopped"),
    ("stopping", StopRequested): _move(_stop, "stopping"),
    ("stopping", Ended): _move(_ended, *_ANY_END),
    ("stopping", Vanished): _move(_vanished, "stopped"),
    ("stopping", Unreachable): _move(_unreachable, "stopping"),
    ("stopping", Reached): _move(_reached, "stopping"),
    ("done", Restarted): _move(_restarted, "submitted"),
    ("failed", Restarted): _move(_restarted, "submitted"),
    ("stopped", Restarted): _move(_restarted, "submitted"),
}


def apply(run: Run, event: Event) -> Run:
    """The run after `event`, one version later. Raises IllegalEvent, and changes nothing."""
    move = TABLE.get((run.status, type(event)))
    if move is None:
        raise IllegalEvent(run, event)
    if isinstance(event, Ended) and (not run.attempts or run.attempts[-1].exit is not None):
        raise IllegalEvent(run, event)
    after = _change(move[0](run, event), version=run.version + 1)
    if after.unknown_since is None:
        after = _change(after, unknown_why=None)
    if after.status not in move[1]:
        raise AssertionError(run.status, event, after.status)
    return after


def diagram() -> str:
    """The table as a Mermaid state diagram, for the docs: what changes a state, and where to."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (status, event), (_, targets) in TABLE.items():
        for target in sorted(targets - {status}):
            arrows.setdefault((status, target), []).append(event.__name__)
    lines = ["stateDiagram-v2", "    [*] --> submitted"]
    lines += [f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in arrows.items()]
    lines += [f"    {end} --> [*]" for end in _ANY_END]
    return "\n".join(lines) + "\n"
