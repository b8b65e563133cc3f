"""What is done next with a run in each state."""

from __future__ import annotations

import pytest

from dstack.run.events import Ended, Started, StopRequested
from dstack.run.model import Status
from dstack.run.next import GRACE, OVERRUN, Poll, Start, Stop, Wait, next_action
from dstack.run.states import apply

from .builders import ALWAYS, FAILED, run, run_in


def test_a_submitted_run_is_started() -> None:
    assert next_action(run(), 1000) == Start(1)


@pytest.mark.parametrize("status", ["preparing", "running"])
def test_a_started_run_is_looked_at(status: Status) -> None:
    assert next_action(run_in(status), 1005) == Poll(1)


@pytest.mark.parametrize("status", ["done", "failed", "stopped"])
def test_nothing_is_done_with_a_finished_run(status: Status) -> None:
    assert next_action(run_in(status), 1005) is None


def test_a_retry_waits_for_its_time() -> None:
    waiting = apply(apply(run(ALWAYS), Started(1001, 1)), Ended(1002, FAILED))
    assert next_action(waiting, 1002) == Wait(1003)
    assert next_action(waiting, 1003) == Start(2)


def test_a_clock_that_was_moved_back_does_not_hold_a_retry_up() -> None:
    waiting = apply(apply(run(ALWAYS), Started(1001, 1)), Ended(1002, FAILED))
    assert next_action(waiting, 5) == Start(2)


def test_stopping_kills_after_the_grace() -> None:
    stopping = run_in("stopping")
    assert next_action(stopping, 1004) == Stop(1, kill=False)
    assert next_action(stopping, 1003 + GRACE + 6) == Stop(1, kill=True)
    assert next_action(apply(stopping, StopRequested(1004, kill=True)), 1004) == Stop(1, kill=True)


def test_stopping_reaches_a_start_that_was_not_recorded() -> None:
    assert next_action(apply(run(), StopRequested(1001)), 1001) == Stop(1, kill=False)
    waiting = apply(apply(run(ALWAYS), Started(1001, 1)), Ended(1002, FAILED))
    assert next_action(apply(waiting, StopRequested(1003)), 1003) == Stop(2, kill=False)


def test_max_duration_is_held_even_if_the_jobs_own_timer_is_gone() -> None:
    running = run_in("running")
    assert next_action(running, 1002 + 3600 + OVERRUN - 1) == Poll(1)
    assert next_action(running, 1002 + 3600 + OVERRUN + 1) == Stop(1, kill=False, overrun=True)
