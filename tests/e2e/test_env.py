"""`env`: literal values, expanded in order where the run happens, and what is there before."""

from __future__ import annotations

import re

from tests.e2e.conftest import RunTask, Task
from tests.support import Dstack


def test_values_are_literal_but_for_names(run_task: RunTask) -> None:
    done = run_task(
        r"""
        env:
          - PLAIN=a b;  c  "d" 'e' `f` $(g) \h * ~
          - FIRST=one
          - SECOND=$FIRST-two
          - THIRD=${SECOND}three
          - DOLLARS=$$FIRST costs $$5 $
          - LATER=[$NOT_YET]
          - NOT_YET=x
          - EMPTY=
          - EQUALS=a=b=c
        commands:
          - printf '%s\n' "$PLAIN" "$THIRD" "$DOLLARS" "$LATER" "[$EMPTY]" "$EQUALS"
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "a b;  c  \"d\" 'e' `f` $(g) \\h * ~",
        "one-twothree",
        "$FIRST costs $5 $",
        "[]",
        "[]",
        "a=b=c",
    ]


def test_path_is_prepended_to_the_path_of_the_run(dstack: Dstack, task: Task) -> None:
    folder = task(
        """
        env:
          - PATH=$DSTACK_WORKING_DIR/bin:$PATH
        commands:
          - mine
          - which python
        """,
        files={"bin/mine": "#!/bin/sh\necho mine\n"},
    )
    (folder / "bin/mine").chmod(0o755)
    out = dstack.ok("run", folder)
    assert re.fullmatch(r"mine\n/.*/env/bin/python\n", out)


def test_a_name_alone_takes_the_value_of_this_shell(run_task: RunTask) -> None:
    done = run_task(
        """
        env:
          GIVEN:
          FIXED: "1"
        commands:
          - printf '%s|' "$GIVEN" "$FIXED" "$LINE"
        """,
        *("-e", "LINE"),
        env={"GIVEN": "it's a\n$HOME value", "LINE": "from the line"},
    )
    assert (done.returncode, done.stdout) == (0, "it's a\n$HOME value|1|from the line|")


def test_a_name_that_this_shell_has_not_is_an_error_before_anything_starts(
    dstack: Dstack, run_task: RunTask
) -> None:
    done = run_task("env: [SURELY_NOT_SET]\ncommands: [echo never]")
    assert (done.returncode, done.stdout) == (2, "")
    assert "SURELY_NOT_SET" in done.stderr
    assert "Traceback" not in done.stderr
    assert dstack.ps("-a") == []


def test_the_command_line_wins_over_the_file(run_task: RunTask) -> None:
    done = run_task(
        "env: [A=file, B=file]\ncommands: ['echo $A $B $C']", "-e", "A=line", "-e", "C=$B!"
    )
    assert (done.returncode, done.stdout) == (0, "line file file!\n")


def test_what_the_command_line_sets_others_of_the_file_mean(run_task: RunTask) -> None:
    done = run_task("env: [A=file, B=$A/b]\ncommands: ['echo $A $B']", "-e", "A=line")
    assert (done.returncode, done.stdout) == (0, "line line/b\n")


def test_a_name_must_be_an_identifier(run_task: RunTask) -> None:
    for text in ("env: [1A=x]", "env: {A-B: x}"):
        done = run_task(f"{text}\ncommands: [echo never]")
        assert done.returncode == 2
        assert re.search(r"\.dstack\.yml:2:\d+: env", done.stderr), done.stderr


def test_dstack_variables_exist_and_env_wins(dstack: Dstack, run_task: RunTask) -> None:
    done = run_task(
        """
        name: named
        env:
          - SEEN=$DSTACK_RUN_NAME/$DSTACK_ATTEMPT
          - PYTHONUNBUFFERED=0
        commands:
          - echo "$SEEN" $PYTHONUNBUFFERED
          - test "$DSTACK_WORKING_DIR" = "$PWD" && echo "$DSTACK_RUN_ID"
        """
    )
    first, run_id = done.stdout.splitlines()
    assert first == "named/1 0"
    assert run_id == dstack.run_of("named")["id"]
    done = run_task("commands: ['echo $PYTHONUNBUFFERED']")
    assert done.stdout == "1\n"


def test_what_this_shell_happens_to_have_does_not_reach_the_run(run_task: RunTask) -> None:
    done = run_task(
        "commands: ['echo [$MINE][$PYTHONPATH][$VIRTUAL_ENV]']",
        env={"MINE": "x", "PYTHONPATH": "/nowhere", "VIRTUAL_ENV": "/somewhere"},
    )
    assert re.fullmatch(r"\[\]\[\]\[/.*/env\]\n", done.stdout)
