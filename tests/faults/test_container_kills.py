"""SIGKILL, and the engine's own `kill` and `rm`, to runs in containers at random moments.

A round that failed is played again with `DSTACK_SEED=N ./test faults -k container_rounds`.
More of them are played with `DSTACK_ROUNDS=N`, for each engine.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import Project
from tests.engines.engine import Engine
from tests.faults.conftest import use
from tests.faults.container_rounds import ContainerRound
from tests.faults.rounds import play, supervisors
from tests.support import Dstack, wait_for

# So many for each engine in CI, where they share two cores with everything else.
ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "16"))
FIRST = int(os.environ.get("DSTACK_FIRST", "0"))
ONLY = os.environ.get("DSTACK_SEED")


def test_container_rounds_of_kills(
    alone: Engine, dstack: Dstack, project: Project, tmp_path: Path
) -> None:
    use(dstack, alone)
    folder = project("type: task\ncommands: ['true']\n")
    seeds = [int(ONLY)] if ONLY is not None else range(FIRST, FIRST + ROUNDS)
    for seed in seeds:
        plan = ContainerRound(seed, tmp_path / f"side-{seed}", alone, dstack.home)
        try:
            play(dstack, folder, plan)
        except AssertionError as error:
            raise AssertionError(f"{error}\nin DSTACK_SEED={seed}: {plan}") from error
    # Nothing is active: the background supervisor has nothing to stay for.
    wait_for(lambda: not supervisors(dstack), "the background supervisor to end", timeout=60)
