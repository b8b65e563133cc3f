"""The table of states and events, in sentences."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from dstack.config.shapes import Retry
from dstack.run.events import (
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
from dstack.run.model import ACTIVE, FINISHED, Exit, Reason, Run, Status
from dstack.run.observation import Unknown, event_of
from dstack.run.states import TABLE, IllegalEvent, apply

from .builders import ALWAYS, DONE, FAILED, run, run_in

STATES: tuple[Status, ...] = get_args(Status)
EVENTS: tuple[Event, ...] = (
    Started(1010, 2),
    Began(1010),
    StopRequested(1010),
    Ended(1010, DONE),
    StartFailed(1010, "start_failed", "no"),
    Vanished(1010),
    Unreachable(1010),
    Reached(1010),
    Restarted(1010),
)


@pytest.mark.parametrize("status", STATES)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_is_not_in_the_table_is_illegal_and_changes_nothing(
    status: Status, event: Event
) -> None:
    before = run_in(status)
    if isinstance(event, Started):
        event = Started(1010, len(before.attempts) + 1)
    copy = msgspec.json.decode(msgspec.json.encode(before), type=Run)
    if (status, type(event)) in TABLE:
        assert apply(before, event).version == before.version + 1
    else:
        with pytest.raises(IllegalEvent, match=f"{before.name} .* is {status}"):
            apply(before, event)
    assert before == copy


def test_every_event_is_legal_somewhere() -> None:
    assert {event for _, event in TABLE} == {type(event) for event in EVENTS}


def test_a_finished_run_only_ever_restarts() -> None:
    assert {event for status, event in TABLE if status in FINISHED} == {Restarted}
    assert set(STATES) == ACTIVE | FINISHED


def test_a_run_that_completes_is_done() -> None:
    ended = apply(run_in("running"), Ended(1004, DONE))
    assert (ended.status, ended.exit_code, ended.reason) == ("done", 0, "completed")
    assert ended.finished_at == 1004


def test_the_failing_command_is_named() -> None:
    ended = apply(run_in("running"), Ended(1004, FAILED))
    assert ended.status == "failed"
    assert ended.message == "command 2 of 3 exited with code 1: python train.py"


def test_a_failing_setup_is_named() -> None:
    end = Exit(code=3, reason="setup_failed", stage="setup", index=1)
    ended = apply(run_in("preparing"), Ended(1004, end))
    assert ended.message == "setup command 1 of 1 exited with code 3: pip install x"


def test_a_signal_is_named() -> None:
    end = Exit(code=139, signal=11, reason="command_failed", stage="commands", index=2)
    ended = apply(run_in("running"), Ended(1004, end))
    assert (ended.exit_code, ended.signal) == (139, 11)
    assert ended.message == "command 2 of 3 was killed by SIGSEGV: python train.py"


def test_max_duration_says_how_long_it_was() -> None:
    ended = apply(run_in("running"), Ended(9999, Exit(code=124, reason="max_duration")))
    assert (ended.status, ended.exit_code) == ("failed", 124)
    assert ended.message == "stopped after its max_duration (1h)"


def test_a_stop_before_anything_was_started_waits_for_the_lease_holder() -> None:
    stopping = apply(run(), StopRequested(1001))
    assert stopping.status == "stopping"
    stopped = apply(stopping, Vanished(1002))
    assert (stopped.status, stopped.reason) == ("stopped", "stopped")


def test_a_start_that_was_under_way_when_the_stop_came_is_recorded() -> None:
    stopping = apply(run(), StopRequested(1001))
    started = apply(stopping, Started(1002, 1))
    assert (started.status, len(started.attempts)) == ("stopping", 1)


def test_ctrl_c_reports_its_own_code() -> None:
    stopping = apply(run_in("running"), StopRequested(1003, code=130))
    ended = apply(stopping, Ended(1004, Exit(code=143, reason="stopped", signal=15)))
    assert (ended.status, ended.exit_code) == ("stopped", 130)


def test_a_run_that_completed_before_the_stop_reached_it_is_done() -> None:
    assert apply(run_in("stopping"), Ended(1004, DONE)).status == "done"


def test_a_second_stop_may_kill_but_never_unkills() -> None:
    killing = apply(run_in("stopping"), StopRequested(1004, kill=True))
    assert killing.stop_kill
    assert killing.stop_at == 1003
    assert apply(killing, StopRequested(1005)).stop_kill


def test_an_attempt_cannot_be_skipped_or_started_twice() -> None:
    for number in (0, 2, 3):
        with pytest.raises(IllegalEvent):
            apply(run(), Started(1001, number))


def test_a_failure_is_tried_again_where_retry_says_so() -> None:
    first = apply(apply(run(ALWAYS), Started(1001, 1)), Ended(1002, FAILED))
    assert (first.status, first.retry_at) == ("submitted", 1003)
    assert first.waiting == "command 2 of 3 exited with code 1: python train.py"
    second = apply(apply(first, Started(1003, 2)), Ended(1004, FAILED))
    assert (second.status, second.retry_at) == ("submitted", 1009)


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        ("command_failed", "error"),
        ("setup_failed", "error"),
        ("oom", "error"),
        ("killed", "interruption"),
        ("host_restarted", "interruption"),
    ],
)
def test_only_the_named_events_are_tried_again(reason: Reason, event: str) -> None:
    for named in ("no-capacity", "interruption", "error"):
        retry = Retry(on_events=(named,), duration=3600)
        begun = apply(run(retry), Started(1001, 1))
        after = apply(begun, Ended(1002, Exit(code=1, reason=reason)))
        assert after.status == ("submitted" if named == event else "failed")


@pytest.mark.parametrize("reason", ["max_duration", "start_failed"])
def test_what_would_end_the_same_way_is_not_tried_again(reason: Reason) -> None:
    begun = apply(run(ALWAYS), Started(1001, 1))
    assert apply(begun, Ended(1002, Exit(code=1, reason=reason))).status == "failed"


def test_a_stopped_run_is_not_tried_again() -> None:
    begun = apply(apply(run(ALWAYS), Started(1001, 1)), StopRequested(1002))
    assert apply(begun, Ended(1003, FAILED)).status == "failed"
    assert apply(begun, Ended(1003, Exit(code=137, reason="killed"))).status == "stopped"


def test_retries_end_with_their_duration() -> None:
    begun = apply(run(ALWAYS), Started(1001, 1))
    assert apply(begun, Ended(1000 + 3601, FAILED)).status == "failed"


def test_no_retry_starts_after_the_duration() -> None:
    brief = Retry(on_events=("error", "no-capacity"), duration=8)
    found = run(brief)
    starts: list[float] = []
    at = 1000.0
    while found.active:
        starts.append(at)
        found = apply(apply(found, Started(at, len(starts))), Ended(at, FAILED))
        at = found.retry_at or at
    assert starts == [1000, 1001, 1006, 1008]
    waiting = apply(run(brief), StartFailed(1001, "no_capacity", "no GPU is free"))
    assert waiting.retry_at == 1008


def test_retries_end_even_if_the_clock_stands_still() -> None:
    found = run(ALWAYS)
    for number in range(1, 1000):
        found = apply(apply(found, Started(1000, number)), Ended(1000, FAILED))
        if not found.active:
            break
    assert found.status == "failed"


def test_no_capacity_waits_only_where_retry_says_so() -> None:
    failed = apply(run(), StartFailed(1001, "no_capacity", "no GPU is free"))
    assert (failed.status, failed.exit_code, failed.message) == ("failed", 125, "no GPU is free")
    waiting = apply(run(ALWAYS), StartFailed(1001, "no_capacity", "no GPU is free"))
    assert (waiting.status, waiting.waiting) == ("submitted", "no GPU is free")
    assert waiting.retry_at is not None
    assert waiting.retry_at > 1001


def test_unknown_is_never_finished() -> None:
    lost = apply(run_in("running"), Unreachable(1010))
    assert (lost.status, lost.unknown_since) == ("running", 1010)
    assert apply(lost, Unreachable(1020)).unknown_since == 1010
    assert apply(lost, Reached(1030)).unknown_since is None


def test_why_it_is_unknown_is_kept_while_it_is() -> None:
    silent = Unknown("alpha cannot be reached: it does not answer", away=True)
    found = event_of(run_in("running"), 1, silent, 1010, held=False)
    assert found == Unreachable(1010, silent.why)
    lost = apply(run_in("running"), found)
    assert (lost.unknown_since, lost.unknown_why) == (1010, silent.why)
    # The same again is no news, another reason is.
    assert event_of(lost, 1, silent, 1020, held=False) is None
    typed = Unknown("alpha cannot be reached: it does not let this user in", away=True, asks=True)
    news = event_of(lost, 1, typed, 1030, held=False)
    assert isinstance(news, Unreachable)
    assert f"`dstack attach {lost.name}` in a terminal" in str(news.why)
    lost = apply(lost, news)
    assert (lost.unknown_since, lost.unknown_why) == (1010, news.why)
    assert apply(lost, Reached(1040)).unknown_why is None
    assert apply(lost, Ended(1040, DONE)).unknown_why is None


def test_a_deleted_job_folder_is_a_failure_that_says_so() -> None:
    lost = apply(run_in("running"), Vanished(1010))
    assert (lost.status, lost.reason, lost.exit_code) == ("failed", "killed", 137)
    assert lost.message == "its job folder was deleted while it ran"


def test_a_restart_forgets_how_it_ended_and_counts_on() -> None:
    again = apply(run_in("failed"), Restarted(2000, ((8000, 8001),)))
    assert (again.status, again.first, again.ports) == ("submitted", 2, ((8000, 8001),))
    assert (again.exit_code, again.reason, again.message, again.finished_at) == (None,) * 4
    assert apply(again, Started(2001, 2)).attempts[-1].number == 2
