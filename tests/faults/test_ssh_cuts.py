"""The way to another machine is cut at random moments: nothing is lost, doubled or left.

A round that failed is played again with `DSTACK_SEED=N ./test faults -k cuts`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.engines.engine import Engine
from tests.faults.cut_rounds import ContainerCutRound, CutRound, masters
from tests.faults.lanes import Lane, play_all, seeds
from tests.faults.rounds import kill
from tests.hosts.client import Client
from tests.hosts.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.hosts.services import Hosts
from tests.support import Dstack

# The workers share the batches; a batch has a state folder and a connection for all its rounds.
BATCHES, ROUNDS = 12, 7
# In containers: so many more.
CONTAINER_BATCHES, CONTAINER_ROUNDS = 3, 6
ONCE = "DSTACK_SEED" in os.environ
# Rounds beyond these that have shown a fault; the last batch plays them again.
FOUND = (307, 744)


@pytest.fixture
def far(hosts: Hosts, ssh: Client, home: Path) -> Iterator[Hosts]:
    """The hosts that `ssh` knows; connections to them, left open on purpose, end with the test."""
    del ssh
    yield hosts
    for pid in masters(home):
        kill(pid)
    for host in hosts.all.values():
        # An end whose other one vanished during a cut lives until it is missed, a minute later.
        host.link.reset()


def lane_to(alias: str, dstack: Dstack, folder: Path) -> Lane:
    """Where all runs are on that host."""
    config = f"backends: [{{name: {alias}, type: ssh, host: {alias}}}]\n"
    (dstack.home / "config.yml").write_text(config)
    return Lane(dstack, folder)


@pytest.mark.parametrize("batch", range(1 if ONCE else BATCHES + 1))
def test_rounds_of_cuts(
    batch: int, far: Hosts, dstack: Dstack, project: Project, tmp_path: Path
) -> None:
    folder = project("type: task\ncommands: ['true']\n", git=batch % 2 == 0)
    lane = lane_to("alpha", dstack, folder)

    def make(seed: int, lane: Lane) -> CutRound:
        return CutRound(seed, tmp_path / f"side-{seed}", far["alpha"], lane.dstack.home)

    play_all([lane], FOUND if batch == BATCHES else seeds(ROUNDS, batch * ROUNDS), make)


@pytest.mark.parametrize("batch", range(1 if ONCE else CONTAINER_BATCHES))
def test_container_rounds_of_cuts(
    batch: int,
    far: Hosts,
    docker_there: Engine,
    dstack: Dstack,
    project: Project,
    tmp_path: Path,
) -> None:
    assert docker_there.containers() == []
    lane = lane_to("boxes", dstack, project("type: task\ncommands: ['true']\n"))

    def make(seed: int, lane: Lane) -> ContainerCutRound:
        side = tmp_path / f"side-{seed}"
        return ContainerCutRound(seed, side, far.docker["boxes"], lane.dstack.home)

    play_all([lane], seeds(CONTAINER_ROUNDS, batch * CONTAINER_ROUNDS), make)
