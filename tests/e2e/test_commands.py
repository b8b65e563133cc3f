"""`commands`: one shell, stdout is the run's output, the exit code is the run's."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import RunTask, Task
from tests.support import Dstack


def test_stdout_is_exactly_the_output_and_the_talk_is_on_stderr(dstack: Dstack, task: Task) -> None:
    folder = task(r"""
        name: exact
        commands:
          - printf 'a\0b\377\r\033[31mred\n'
          - printf 'and no newline' >&2
        """)
    done = dstack.raw("run", folder)
    assert done.stdout == b"a\0b\xff\r\x1b[31mred\nand no newline"
    assert done.returncode == 0
    assert b"exact: local" in done.stderr
    assert dstack.raw("logs", "exact").stdout == done.stdout


def test_one_shell_runs_them_in_order(run_task: RunTask) -> None:
    done = run_task(
        """
        commands:
          - mkdir sub && cd sub
          - export GREETING=hello
          - here=$PWD
          - |
            # a comment, and an item of several lines
            if true; then
              echo "$GREETING from ${here##*/}"
            fi
          - '# nothing but a comment'
          - |
            cat <<EOF
            $GREETING  "quoted"  $$HOME_IS_NOT_EXPANDED
            EOF
          - f() { echo "f $1"; }
          - f 'a  b' # trailing comment
          - false || echo caught
          - true
          - sleep 0.01 &
          - wait && echo waited
        """
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == "hello from sub"
    assert lines[1].startswith('hello  "quoted"  ')
    assert lines[2:] == ["f a  b", "caught", "waited"]


def test_commands_reach_the_shell_as_written(run_task: RunTask) -> None:
    done = run_task(
        r"""
        commands:
          - 'echo $$ > pid; test "$(cat pid)" -eq $$ && echo "\$HOME" $HOME \\ "a\tb"'
          - true
          - echo ${PWD:+there} `echo ticks` $((1+2)) '*' "$(printf %s 'x y')"
          - echo '$${{ run.name }}'
        """,
        env={"HOME": "/tmp"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("$HOME /tmp \\ a\\tb\nthere ticks 3 * x y\n${{ run.name }}\n")


def test_the_first_that_fails_ends_the_run_and_is_named(dstack: Dstack, run_task: RunTask) -> None:
    done = run_task(
        """
        name: fails
        commands:
          - echo before
          - python -c 'raise SystemExit(7)'
          - echo never
        """
    )
    assert (done.returncode, done.stdout) == (7, "before\n")
    sentence = "command 2 of 3 exited with code 7: python -c 'raise SystemExit(7)'"
    assert sentence in done.stderr
    run = dstack.run_of("fails")
    assert run["message"] == sentence
    assert (run["status"], run["reason"], run["exit_code"]) == ("failed", "command_failed", 7)


def test_a_setup_command_that_fails_is_named_as_such(dstack: Dstack, run_task: RunTask) -> None:
    done = run_task(
        """
        name: unready
        setup: ["true", "exit 9"]
        commands: [echo never]
        """
    )
    assert (done.returncode, done.stdout) == (9, "")
    assert "setup command 2 of 2 exited with code 9: exit 9" in done.stderr
    assert dstack.run_of("unready")["reason"] == "setup_failed"


def test_exit_in_a_command_ends_the_run(run_task: RunTask) -> None:
    done = run_task("commands: [echo one, exit 0, echo never]")
    assert (done.returncode, done.stdout) == (0, "one\n")


@pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("TERM", 15), ("SEGV", 11)])
def test_a_signal_makes_128_and_its_number(
    dstack: Dstack, run_task: RunTask, name: str, number: int
) -> None:
    done = run_task(f"name: killed\ncommands: ['kill -{name} $$', sleep 60]")
    assert done.returncode == 128 + number
    assert f"command 1 of 2 was killed by SIG{name}" in done.stderr
    run = dstack.run_of("killed")
    assert (run["status"], run["signal"], run["exit_code"]) == ("failed", number, 128 + number)


def test_a_background_item_does_not_outlive_the_run(dstack: Dstack, run_task: RunTask) -> None:
    done = run_task(
        """
        commands:
          - sleep 300 &
          - setsid sleep 300 > /dev/null 2>&1 &
          - echo done
        """
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert not [each for each in dstack.leftovers() if "sleep" in each]


def test_stdin_of_a_run_is_empty(run_task: RunTask) -> None:
    done = run_task("commands: [cat, echo end]")
    assert (done.returncode, done.stdout) == (0, "end\n")


def test_much_output_arrives_whole(dstack: Dstack, task: Task) -> None:
    folder = task("commands: ['python -c \"for i in range(400000): print(i)\"']")
    done = dstack.raw("run", folder)
    assert done.stdout == b"".join(b"%d\n" % i for i in range(400000))


def test_what_yaml_would_turn_into_something_else(run_task: RunTask) -> None:
    done = run_task(
        """
        env: {ANSWER: yes, VERSION: 3.10, TIME: 22:22, NOTHING: ""}
        commands:
          - true
          - echo $ANSWER $VERSION $TIME "[$NOTHING]"
        """
    )
    assert (done.returncode, done.stdout) == (0, "yes 3.10 22:22 []\n")
