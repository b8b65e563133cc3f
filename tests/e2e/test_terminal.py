"""On a real terminal: Ctrl-C asks, a second one stops, closing it detaches; colours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pexpect
import pytest

from tests.e2e.conftest import Task
from tests.support import Dstack, wait_for

FOREVER = """
    name: asked
    commands:
      - echo begun
      - while [ ! -e go ]; do sleep 0.05; done
      - echo ended; exit 4
    """
Open = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def terminal(dstack: Dstack, tmp_path: Path) -> Iterator[Open]:
    """Type a command into a terminal of its own."""
    opened: list[pexpect.spawn[str]] = []

    def start(*args: str | Path, env: Mapping[str, str] | None = None) -> pexpect.spawn[str]:
        environment = {**dstack.env(), "TERM": "xterm", **(env or {})}
        started = pexpect.spawn(
            dstack.binary, list(map(str, args)), env=environment, encoding="utf-8", timeout=60,
            dimensions=(24, 80), cwd=str(tmp_path),
        )  # fmt: skip
        opened.append(started)
        return started

    yield start
    for each in opened:
        each.close(force=True)


def all_of(child: pexpect.spawn[str]) -> str:
    """What it prints to its end."""
    child.expect(pexpect.EOF)
    assert child.before is not None
    return child.before


def ended(child: pexpect.spawn[str]) -> int | None:
    """Wait for its end; the exit code."""
    child.expect(pexpect.EOF)
    child.close()
    code: int | None = child.exitstatus
    return code


def go(dstack: Dstack) -> None:
    """Let the task end."""
    (code,) = dstack.home.glob("runs/*/code")
    (code / "go").touch()


def asked(terminal: Open, folder: Path) -> pexpect.spawn[str]:
    """A run of the task, and Ctrl-C."""
    child = terminal("run", folder)
    child.expect("begun")
    child.sendintr()
    child.expect(r"\[s\]top it, \[d\]etach from it, or \[g\]o on\? ")
    return child


@pytest.mark.parametrize("answer", ["s", "stop"])
def test_ctrl_c_and_stop(dstack: Dstack, task: Task, terminal: Open, answer: str) -> None:
    child = asked(terminal, task(FOREVER))
    child.sendline(answer)
    child.expect("asked was stopped")
    assert ended(child) == 130
    run = dstack.run_of("asked")
    assert (run["status"], run["exit_code"]) == ("stopped", 130)


def test_ctrl_c_and_detach(dstack: Dstack, task: Task, terminal: Open) -> None:
    child = asked(terminal, task(FOREVER))
    child.sendline("d")
    child.expect("dstack attach asked")
    assert ended(child) == 0
    assert dstack.run_of("asked")["status"] == "running"
    go(dstack)
    assert dstack.wait_status("asked", "failed")["exit_code"] == 4


@pytest.mark.parametrize("answer", ["g", "", "what?"])
def test_ctrl_c_and_go_on(dstack: Dstack, task: Task, terminal: Open, answer: str) -> None:
    child = asked(terminal, task(FOREVER))
    child.sendline(answer)
    go(dstack)
    child.expect("ended")
    assert ended(child) == 4


def test_a_second_ctrl_c_stops(dstack: Dstack, task: Task, terminal: Open) -> None:
    child = asked(terminal, task(FOREVER))
    child.sendintr()
    assert ended(child) == 130
    assert dstack.run_of("asked")["status"] == "stopped"


def test_ctrl_c_while_it_stops_kills(dstack: Dstack, task: Task, terminal: Open) -> None:
    folder = task("""
        name: asked
        commands: [trap '' TERM INT, echo begun, 'while :; do sleep 1; done']
        """)
    child = asked(terminal, folder)
    child.sendline("s")
    child.expect("stopping asked")
    child.sendintr()
    assert ended(child) == 130
    assert dstack.run_of("asked")["signal"] == 9


def test_the_run_does_not_get_the_terminals_ctrl_c(
    dstack: Dstack, task: Task, terminal: Open
) -> None:
    folder = task("""
        name: asked
        commands:
          - trap 'echo interrupted' INT
          - echo begun
          - while [ ! -e go ]; do sleep 0.05; done
          - echo ended
        """)
    child = asked(terminal, folder)
    child.sendline("g")
    go(dstack)
    assert ended(child) == 0
    assert dstack.ok("logs", "asked") == "begun\nended\n"


def test_closing_the_terminal_detaches(dstack: Dstack, task: Task, terminal: Open) -> None:
    child = terminal("run", task(FOREVER))
    child.expect("begun")
    child.close(force=False)
    wait_for(lambda: not child.isalive(), "the command to end", timeout=30)
    assert dstack.run_of("asked")["status"] == "running"
    go(dstack)
    assert dstack.wait_status("asked", "failed")["exit_code"] == 4
    assert dstack.ok("logs", "asked") == "begun\nended\n"


def test_ctrl_c_leaves_an_attached_run_as_it_leaves_a_started_one(
    dstack: Dstack, task: Task, terminal: Open
) -> None:
    dstack.ok("run", task(FOREVER), "-d")
    child = terminal("attach", "asked")
    child.expect("begun")
    child.sendintr()
    child.expect("or .*on\\? ")
    child.sendline("d")
    assert ended(child) == 0
    assert dstack.run_of("asked")["status"] == "running"


def test_ctrl_z_and_on_again(dstack: Dstack, task: Task, tmp_path: Path) -> None:
    shell = pexpect.spawn(
        "bash", ["--norc", "-i"], env={**dstack.env(), "TERM": "dumb", "PS1": "> "},
        encoding="utf-8", timeout=60, cwd=str(tmp_path),
    )  # fmt: skip
    shell.expect("> ")
    shell.sendline(f"{dstack.binary} run '{task(FOREVER)}'")
    shell.expect("begun\r\n")
    shell.sendcontrol("z")
    shell.expect("Stopped")
    go(dstack)
    assert dstack.wait_status("asked", "failed")["exit_code"] == 4
    shell.sendline("fg")
    shell.expect("ended\r\n")
    shell.sendline("echo code-$?")
    shell.expect("code-4")
    shell.close(force=True)


def test_colours_are_for_terminals(dstack: Dstack, task: Task, terminal: Open) -> None:
    folder = task("commands: [exit 3]")
    assert "\x1b[31merror:\x1b[0m" in all_of(terminal("run", folder))
    plain = all_of(terminal("run", folder, env={"NO_COLOR": "1"}))
    assert "error:" in plain
    assert "\x1b[" not in plain
    assert "\x1b[" not in dstack("run", folder, env={"TERM": "xterm"}).stderr


def test_what_a_run_prints_is_what_the_terminal_gets(task: Task, terminal: Open) -> None:
    folder = task("""
        commands:
          - test -t 1 || echo "no terminal inside"
          - for i in 1 2 3; do printf '\\r%s%%' $i; done; echo
        """)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", all_of(terminal("run", folder)))
    assert "no terminal inside\r\n\r1%\r2%\r3%\r\n" in shown


def test_what_dstack_says_begins_a_line(task: Task, terminal: Open) -> None:
    folder = task("commands: [printf half, exit 3]")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", all_of(terminal("run", folder)))
    assert "half\r\nerror: command 2 of 2" in shown


def test_questions_are_asked_on_a_terminal_and_y_answers_them(
    dstack: Dstack, task: Task, terminal: Open
) -> None:
    dstack.ok("run", task("commands: [echo hi]"), "-n", "one")
    child = terminal("rm", "-a")
    child.expect("delete 1 run")
    child.sendline("n")
    assert ended(child) == 1
    assert len(dstack.ps("-a")) == 1
    child = terminal("rm", "-a", "-y")
    assert ended(child) == 0
    assert dstack.ps("-a") == []
