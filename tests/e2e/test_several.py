"""Several machines at once: who is silent keeps nobody waiting, and the order holds."""

from __future__ import annotations

from tests.e2e.conftest import Task
from tests.e2e.far import *  # noqa: F403 (that is how fixtures are taken over)
from tests.hosts.services import Hosts
from tests.support import Dstack, wait_for


def connected(hosts: Hosts, name: str) -> bool:
    """Whether somebody is logged in there."""
    return bool(hosts[name].processes("me"))


def test_all_are_connected_to_while_the_first_is_silent(
    far: Dstack, task: Task, hosts: Hosts
) -> None:
    folder = task("commands: [uname -n]")
    hosts["alpha"].link.drop()
    both = ("--backend", "alpha", "--backend", "nogit")
    command = far.start("run", ".", *both, cwd=folder, env={"UV_OFFLINE": "1"})
    wait_for(lambda: connected(hosts, "nogit"), "a connection to the second one")
    assert command.poll() is None
    # In time: its place in the order counts.
    hosts["alpha"].link.heal()
    out, err = command.communicate(timeout=90)
    assert out == b"alpha\n", err
    # The other one was not needed, but for the shared connection, which stays a while.
    wait_for(lambda: not hosts["nogit"].jobs(), "the end of what answered there")


def test_the_second_one_runs_it_when_there_is_no_way_to_the_first(
    far: Dstack, task: Task, hosts: Hosts
) -> None:
    hosts["alpha"].link.cut()
    both = ("--backend", "alpha", "--backend", "nogit")
    assert far.ok("run", ".", *both, cwd=task("commands: [uname -n]")) == "nogit\n"


def test_check_shows_each_as_soon_as_it_is_known(far: Dstack, hosts: Hosts) -> None:
    hosts["alpha"].link.drop()
    command = far.start("backend", "check", "nogit", "alpha", "bare", bufsize=0)
    assert command.stdout
    assert command.stdout.readline() == b"nogit (nogit)  answers\n"
    wait_for(lambda: connected(hosts, "bare"), "a connection to the last one")
    hosts["alpha"].link.heal()
    out, err = command.communicate(timeout=90)
    assert command.returncode == 0, err
    rest = [line for line in out.decode().splitlines() if line and not line.startswith(" ")]
    assert rest == ["alpha (alpha)  answers", "bare (bare)  answers"]
