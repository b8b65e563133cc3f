"""Runs in every state, for tests."""

from __future__ import annotations

from dstack.config.shapes import Retry
from dstack.run.events import Began, Ended, Event, Started, StopRequested
from dstack.run.model import Exit, Plan, Run, Status
from dstack.run.states import apply

PLAN = Plan(
    name="brave-otter",
    project="/p",
    workdir=".",
    file=".dstack.yml",
    backend="local",
    engine="process",
    commands=("true", "python train.py", "true"),
    setup=("pip install x",),
    max_duration=3600,
)
ALWAYS = Retry(on_events=("no-capacity", "interruption", "error"), duration=3600)


def run(retry: Retry | None = None, max_duration: int | None = 3600) -> Run:
    """A run that was just submitted, at second 1000."""
    import msgspec

    plan = msgspec.structs.replace(PLAN, retry=retry, max_duration=max_duration)
    return Run(id="abc", name=plan.name, plan=plan, status="submitted", submitted_at=1000.0)


FAILED = Exit(code=1, reason="command_failed", stage="commands", index=2)
DONE = Exit(code=0, reason="completed")

_WAYS: dict[Status, list[Event]] = {
    "submitted": [],
    "preparing": [Started(1001, 1)],
    "running": [Started(1001, 1), Began(1002)],
    "stopping": [Started(1001, 1), Began(1002), StopRequested(1003)],
    "done": [Started(1001, 1), Ended(1004, DONE)],
    "failed": [Started(1001, 1), Began(1002), Ended(1004, FAILED)],
    "stopped": [
        Started(1001, 1),
        StopRequested(1003),
        Ended(1004, Exit(code=143, reason="stopped", signal=15)),
    ],
}


def run_in(status: Status) -> Run:
    """A run that came to be in this state."""
    found = run()
    for event in _WAYS[status]:
        found = apply(found, event)
    assert found.status == status
    return found
