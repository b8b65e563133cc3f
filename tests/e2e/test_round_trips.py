"""How often a command waits for another machine, told by a link on which each takes a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.e2e.conftest import Task
from tests.e2e.far import *  # noqa: F403 (that is how fixtures are taken over)
from tests.hosts.client import Client
from tests.hosts.services import Hosts
from tests.support import Dstack

DELAY = 1.0  # seconds that a round trip takes, many times what everything else does


def took(what: Callable[[], object]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began


def test_a_short_run_waits_three_times_more_than_ssh(
    far: Dstack, task: Task, hosts: Hosts, ssh: Client
) -> None:
    folder = task("commands: [echo hi]")

    def run() -> None:
        assert far.ok("run", ".", "--backend", "alpha", cwd=folder) == "hi\n"

    def plain() -> None:
        options = (
            "-o",
            "ControlMaster=auto",
            "-o",
            f"ControlPath={folder}/c",
            "-o",
            "ControlPersist=60",
        )
        assert ssh.run(*options, "alpha", "true").returncode == 0

    # Connections and the code are there.
    run()
    plain()
    run_itself = min(took(run) for _ in range(2))
    plain_itself = min(took(plain) for _ in range(2))
    link = hosts["alpha"].link
    link.slow(DELAY)
    try:
        plain_trips = (min(took(plain) for _ in range(2)) - plain_itself) / DELAY
        # What else the machine does can only add to it.
        for _ in range(5):
            run_trips = (took(run) - run_itself) / DELAY
            if run_trips - plain_trips <= 3.5:
                break
    finally:
        link.heal()
    ssh.run("-o", f"ControlPath={folder}/c", "-O", "exit", "alpha")
    # Half a round trip is what a busy machine may add.
    assert run_trips - plain_trips <= 3.5, f"{run_trips:.1f} against {plain_trips:.1f}"
