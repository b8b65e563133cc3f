"""SIGKILL to everything of dstack's, at random moments: nothing is lost, doubled or left.

A round that failed is played again with `DSTACK_SEED=N ./test faults -k rounds`: it is number N
then, alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.faults.rounds import Round, play, supervisors
from tests.support import Dstack, wait_for

# 14 batches of 15 rounds: the workers share the batches, a batch shares one state folder.
BATCHES, ROUNDS = 14, 15
ONLY = os.environ.get("DSTACK_SEED")


@pytest.mark.parametrize("batch", range(BATCHES if ONLY is None else 1))
def test_rounds_of_kills(batch: int, dstack: Dstack, project: Project, tmp_path: Path) -> None:
    folder = project("type: task\ncommands: ['true']\n", git=batch % 2 == 0)
    first = batch * ROUNDS
    seeds = [int(ONLY)] if ONLY is not None else range(first, first + ROUNDS)
    for seed in seeds:
        plan = Round(seed, tmp_path / f"side-{seed}")
        try:
            play(dstack, folder, plan)
        except AssertionError as error:
            raise AssertionError(f"{error}\nin DSTACK_SEED={seed}: {plan}") from error
    # Nothing is active: the background supervisor has nothing to stay for.
    wait_for(lambda: not supervisors(dstack), "the background supervisor to end", timeout=60)
