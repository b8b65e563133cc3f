"""SIGKILL to everything of dstack's, at random moments: nothing is lost, doubled or left.

A round that failed is played again with `DSTACK_SEED=N ./test faults -k rounds`: it is number N
then, alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.lanes import Lane, play_all, seeds
from tests.faults.rounds import Round
from tests.support import git_init, write_files

# 7 batches of 30 rounds: the workers share the batches. So many of a batch's rounds are played at
# once, as they mostly wait; each lane has a state folder for all its rounds.
BATCHES, ROUNDS, LANES = 7, 30, 2


@pytest.mark.parametrize("batch", range(BATCHES if "DSTACK_SEED" not in os.environ else 1))
def test_rounds_of_kills(batch: int, lanes: Callable[[int], list[Lane]], tmp_path: Path) -> None:
    ready = lanes(LANES)
    for number, lane in enumerate(ready):
        write_files(lane.folder, {".dstack.yml": "type: task\ncommands: ['true']\n"})
        if (batch + number) % 2 == 0:
            git_init(lane.folder)
    chosen = seeds(ROUNDS, batch * ROUNDS)
    play_all(ready, chosen, lambda seed, _: Round(seed, tmp_path / f"side-{seed}"))
