"""The way to another machine is cut at random moments: nothing is lost, doubled or left.

A round that failed is played again with `DSTACK_SEED=N ./test faults -k cuts`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.faults.cut_rounds import CutRound, masters
from tests.faults.lanes import Lane, play_all, seeds
from tests.faults.rounds import kill
from tests.hosts.client import Client
from tests.hosts.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.hosts.services import Hosts
from tests.support import Dstack

# The workers share the batches; a batch has a state folder and a connection for all its rounds.
BATCHES, ROUNDS = 12, 10

CONFIG = "backends: [{name: alpha, type: ssh, host: alpha}]\n"


@pytest.fixture
def far(hosts: Hosts, ssh: Client, home: Path) -> Iterator[Hosts]:
    """The hosts that `ssh` knows; connections to them, left open on purpose, end with the test."""
    del ssh
    (home / "config.yml").write_text(CONFIG)
    yield hosts
    for pid in masters(home):
        kill(pid)
    # An end whose other one vanished during a cut lives until TCP itself gives up, hours later.
    hosts["alpha"].link.reset()


@pytest.mark.parametrize("batch", range(BATCHES if "DSTACK_SEED" not in os.environ else 1))
def test_rounds_of_cuts(
    batch: int, far: Hosts, dstack: Dstack, project: Project, tmp_path: Path
) -> None:
    lane = Lane(dstack, project("type: task\ncommands: ['true']\n", git=batch % 2 == 0))

    def make(seed: int, lane: Lane) -> CutRound:
        return CutRound(seed, tmp_path / f"side-{seed}", far["alpha"], lane.dstack.home)

    play_all([lane], seeds(ROUNDS, batch * ROUNDS), make)
