"""SIGKILL, and the engine's own `kill` and `rm`, to runs in containers at random moments.

A round that failed is played again with `DSTACK_SEED=N ./test faults -k container_rounds`.
More of them are played with `DSTACK_ROUNDS=N`, for each engine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.engines.engine import Engine
from tests.faults.conftest import use
from tests.faults.container_rounds import ContainerRound
from tests.faults.lanes import Lane, play_all, seeds

# So many for each engine, and so many at once.
ROUNDS, LANES = 50, 4


def test_container_rounds_of_kills(
    alone: Engine, lanes: Callable[[int], list[Lane]], tmp_path: Path
) -> None:
    def make(seed: int, lane: Lane) -> ContainerRound:
        return ContainerRound(seed, tmp_path / f"side-{seed}", alone, lane.dstack.home)

    ready = lanes(LANES)
    for lane in ready:
        use(lane.dstack, alone)
    play_all(ready, seeds(ROUNDS), make)
