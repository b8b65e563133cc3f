"""SIGKILL to everything of dstack's, at random moments: nothing is lost, doubled or left.

A round that failed is played again with `DSTACK_SEED=N ./test faults -k rounds`: it is number N
then, alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.faults.lanes import Lane, play_all, seeds
from tests.faults.rounds import Round
from tests.support import Dstack

# 14 batches of 15 rounds: the workers share the batches, a batch shares one state folder.
BATCHES, ROUNDS = 14, 15


@pytest.mark.parametrize("batch", range(BATCHES if "DSTACK_SEED" not in os.environ else 1))
def test_rounds_of_kills(batch: int, dstack: Dstack, project: Project, tmp_path: Path) -> None:
    lane = Lane(dstack, project("type: task\ncommands: ['true']\n", git=batch % 2 == 0))
    chosen = seeds(ROUNDS, batch * ROUNDS)
    play_all([lane], chosen, lambda seed, _: Round(seed, tmp_path / f"side-{seed}"))
