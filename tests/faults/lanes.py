"""Rounds of killing, several at once: each lane has a state folder and a project of its own.

What a round kills is found by its lane's state folder, so rounds of other lanes are never hit; an
engine that they share sees them all at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.faults.rounds import Round, play, supervisors
from tests.support import Dstack, wait_for


class Lane(NamedTuple):
    """Where one round after the other is played."""

    dstack: Dstack
    folder: Path  # the project


Make = Callable[[int, Lane], Round]


def seeds(count: int, first: int = 0) -> Iterable[int]:
    """What to play: DSTACK_SEED alone, or as given, but DSTACK_ROUNDS, and DSTACK_FIRST further on.

    So other rounds are played than every day: those find what these no longer do.
    """
    only = os.environ.get("DSTACK_SEED")
    if only is not None:
        return [int(only)]
    first += int(os.environ.get("DSTACK_FIRST", "0"))
    return range(first, first + int(os.environ.get("DSTACK_ROUNDS", count)))


def play_all(lanes: Sequence[Lane], chosen: Iterable[int], make: Make) -> None:
    """Play the rounds that `make` draws from the seeds; each on the lane that is free first.

    The first that fails ends it: the lanes finish what they are at.
    """
    left, lock, failed = iter(chosen), threading.Lock(), threading.Event()

    def next_seed() -> int | None:
        with lock:
            return None if failed.is_set() else next(left, None)

    def work(lane: Lane) -> None:
        while (seed := next_seed()) is not None:
            plan = make(seed, lane)
            try:
                play(lane.dstack, lane.folder, plan)
            except BaseException as error:
                failed.set()
                raise AssertionError(f"{error}\nin DSTACK_SEED={seed}: {plan}") from error

    with ThreadPoolExecutor(len(lanes)) as pool:
        at_work = [pool.submit(work, lane) for lane in lanes]
    for done in at_work:
        done.result()
    for lane in lanes:
        # Nothing is active: the background supervisor has nothing to stay for.
        wait_for(
            lambda lane=lane: not supervisors(lane.dstack),  # type: ignore[misc]
            "the background supervisor to end",
            timeout=60,
        )
