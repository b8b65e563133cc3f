"""A machine that takes a typed password only: who asks for it, and what is said meanwhile."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pexpect
import pytest

from tests.e2e.conftest import Task
from tests.e2e.far import *  # noqa: F403 (that is how fixtures are taken over)
from tests.e2e.far import end_masters
from tests.hosts.services import Hosts
from tests.hosts.spec import PASSWORD
from tests.support import Dstack, wait_for

WAITS = "commands: ['echo begun; until [ -e ~/go ]; do sleep 0.1; done; echo over']"
HOW = "alpha may need a password: run `dstack attach far` in a terminal"


@pytest.fixture
def typed(far: Dstack) -> Dstack:
    """The command, with a backend alpha that only a password opens."""
    (far.home / "config.yml").write_text(
        "backends:\n  - {name: local}\n  - {name: alpha, type: ssh, host: alpha.typed}\n"
        "  - {name: nogit, type: ssh, host: nogit}\n"
    )
    return far


def terminal(dstack: Dstack, *args: str, cwd: Path | None = None) -> pexpect.spawn[str]:
    """Type a command, and the password that it asks for."""
    child = pexpect.spawn(
        dstack.binary, list(args), env={**dstack.env(), "NO_COLOR": "1"}, encoding="utf-8",
        timeout=60, cwd=str(cwd or dstack.cwd),
    )  # fmt: skip
    child.expect("password:")
    child.sendline(PASSWORD)
    return child


def recorded(dstack: Dstack) -> str:
    """The status of the one run as somebody recorded it: nobody is asked."""
    with sqlite3.connect(dstack.home / "dstack.db") as database:
        ((doc,),) = database.execute("SELECT json_extract(doc, '$.status') FROM runs").fetchall()
    return str(doc)


def test_a_lost_connection_waits_for_a_person(typed: Dstack, task: Task, hosts: Hosts) -> None:
    args = ("run", ".", "-d", "-n", "far", "--backend", "alpha")
    started = terminal(typed, *args, cwd=task(WAITS))
    started.expect("it goes on in the background")
    started.expect(pexpect.EOF)
    # The connection that was made is everybody's.
    typed.wait_status("far", "running")
    end_masters(typed.home)
    run = typed.wait_status("far", "unknown")
    assert run["message"] == HOW
    assert HOW in typed.ok("ps")
    stopped = typed("logs", "far")
    assert "there may be more" in stopped.stderr
    person = terminal(typed, "attach", "far")
    person.expect("begun")
    person.sendintr()
    person.expect(r"\[g\]o on\? ")
    person.sendline("d")
    person.expect(pexpect.EOF)
    assert typed.run_of("far")["status"] == "running"
    # The one in the background uses it, too.
    hosts["alpha"].write("/home/typed/go", "", user="typed")
    wait_for(lambda: recorded(typed) == "done", "its end to be recorded", timeout=60)
    assert typed.ok("logs", "far") == "begun\nover\n"


def test_a_stop_is_told_once_somebody_is_there(typed: Dstack, task: Task) -> None:
    started = terminal(typed, "run", ".", "-d", "-n", "far", "--backend", "alpha", cwd=task(WAITS))
    started.expect(pexpect.EOF)
    typed.wait_status("far", "running")
    end_masters(typed.home)
    said = typed("stop", "far")
    assert said.returncode == 1
    assert f"{HOW}; far is stopped as soon as it answers" in said.stderr
    assert "Traceback" not in said.stderr
    person = terminal(typed, "stop", "far")
    person.expect("far was stopped")
    person.expect(pexpect.EOF)
    assert typed.run_of("far")["status"] == "stopped"


def test_of_several_only_who_needs_it_asks(typed: Dstack, task: Task) -> None:
    check = terminal(typed, "backend", "check", "alpha", "nogit")
    check.expect(r"alpha \(alpha.typed\)  answers")
    check.expect(r"nogit \(nogit\)  answers")
    check.expect(pexpect.EOF)
    end_masters(typed.home)
    both = ("--backend", "alpha", "--backend", "nogit")
    command = terminal(typed, "run", ".", *both, cwd=task("commands: ['whoami; uname -n']"))
    command.expect("typed\r\nalpha\r\n")
    command.expect(pexpect.EOF)
