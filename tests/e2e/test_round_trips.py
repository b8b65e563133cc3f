"""How often a command waits for another machine, counted by a slow link between the two."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.conftest import Task
from tests.e2e.far import *  # noqa: F403 (that is how fixtures are taken over)
from tests.hosts.client import Client
from tests.hosts.services import Hosts
from tests.support import Dstack

# Seconds that a round trip takes: longer than a busy machine pauses between two requests that go
# out together, so that no answer comes between them.
DELAY = 0.5
# One-way trips: three times there and back, and one that a busy machine adds now and then.
MORE = 7


def test_a_short_run_waits_three_times_more_than_ssh(
    far: Dstack, task: Task, hosts: Hosts, ssh: Client
) -> None:
    folder = task("commands: [echo hi]")
    shared = ("-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/c")

    def run() -> None:
        assert far.ok("run", ".", "--backend", "alpha", cwd=folder) == "hi\n"

    def plain() -> None:
        assert ssh.run(*shared, "-o", "ControlPersist=60", "alpha", "true").returncode == 0

    # Connections and the code are there.
    run()
    plain()
    link = hosts["alpha"].link
    link.slow(DELAY)

    def waits(what: Callable[[], object]) -> int:
        """One-way trips. Of several tries: a pause of the machine can only add to them."""
        link.passed()
        what()
        return link.passed().trips

    try:
        of_plain = min(waits(plain) for _ in range(2))
        of_run = waits(run)
        for _ in range(4):
            if of_run > of_plain + MORE:
                of_run = min(of_run, waits(run))
    finally:
        link.heal()
    ssh.run("-o", f"ControlPath={folder}/c", "-O", "exit", "alpha")
    assert of_plain == 4
    assert of_run <= of_plain + MORE, f"{of_run} one-way trips"
