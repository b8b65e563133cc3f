"""The way to another machine is cut at random moments: nothing is lost, doubled or left.

A round that failed is played again with `DSTACK_SEED=N ./test faults -k cuts`.
More of them are played with `DSTACK_ROUNDS=N`, so many in each batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.faults.cut_rounds import CutRound, masters
from tests.faults.rounds import kill, play, supervisors
from tests.hosts.client import Client
from tests.hosts.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.hosts.services import Hosts
from tests.support import Dstack, wait_for

# The workers share the batches; a batch has a state folder and a connection for all its rounds.
BATCHES = 12
ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "10"))
FIRST = int(os.environ.get("DSTACK_FIRST", "0"))
ONLY = os.environ.get("DSTACK_SEED")

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


@pytest.mark.parametrize("batch", range(BATCHES if ONLY is None else 1))
def test_rounds_of_cuts(
    batch: int, far: Hosts, dstack: Dstack, project: Project, tmp_path: Path
) -> None:
    folder = project("type: task\ncommands: ['true']\n", git=batch % 2 == 0)
    first = FIRST + batch * ROUNDS
    for seed in [int(ONLY)] if ONLY is not None else range(first, first + ROUNDS):
        plan = CutRound(seed, tmp_path / f"side-{seed}", far["alpha"], dstack.home)
        try:
            play(dstack, folder, plan)
        except AssertionError as error:
            raise AssertionError(f"{error}\nin DSTACK_SEED={seed}: {plan}") from error
    # Nothing is active: the background supervisor has nothing to stay for.
    wait_for(lambda: not supervisors(dstack), "the background supervisor to end", timeout=60)
