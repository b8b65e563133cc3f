"""SIGKILL to whatever makes a build, at random moments: it is whole, or not there.

A round that failed is played again with `DSTACK_SEED=N ./test faults -k build_rounds`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.engines.engine import Engine
from tests.faults.build_rounds import BuildRound, ContainerBuildRound, none_left, projects
from tests.faults.conftest import use
from tests.faults.lanes import Lane, play_all, seeds

Lanes = Callable[[int], list[Lane]]

# How many, for processes and for each engine; and how many at once.
ROUNDS, CONTAINER_ROUNDS, LANES = 16, 12, 3


def test_build_rounds_of_kills(lanes: Lanes, tmp_path: Path) -> None:
    ready = lanes(LANES)
    for lane in ready:
        projects(lane.folder)
    play_all(ready, seeds(ROUNDS), lambda seed, _: BuildRound(seed, tmp_path / f"side-{seed}"))
    for lane in ready:
        none_left(lane.dstack)


def test_container_build_rounds_of_kills(alone: Engine, lanes: Lanes, tmp_path: Path) -> None:
    def make(seed: int, lane: Lane) -> ContainerBuildRound:
        return ContainerBuildRound(seed, tmp_path / f"side-{seed}", alone, lane.dstack.home)

    ready, before = lanes(LANES), images(alone)
    for lane in ready:
        projects(lane.folder)
        use(lane.dstack, alone)
    play_all(ready, seeds(CONTAINER_ROUNDS), make)
    for lane in ready:
        none_left(lane.dstack)
    # Those without a name, too: of a commit that nobody waited for.
    assert images(alone) == before


def images(engine: Engine) -> set[str]:
    """The ids of all images there are."""
    return set(engine.cli("images", "--all", "--quiet", "--no-trunc").split())
