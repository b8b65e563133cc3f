"""Secrets: kept encrypted, passed once, never shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pexpect

from tests.e2e.conftest import RunTask, Task
from tests.support import Dstack

VALUE = "correct horse; battery 'staple' $HOME"
TASK = """
    name: keeper
    env:
      - TOKEN=${{ secrets.TOKEN }}
      - URL=https://me:${{ secrets.TOKEN }}@example.org
    """


def files_with(folder: Path, text: str) -> list[str]:
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in found if text.encode() in path.read_bytes()]


def command_lines() -> bytes:
    parts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parts.append(path.read_bytes())
        except OSError:
            continue
    return b"\n".join(parts)


def test_set_list_delete(dstack: Dstack) -> None:
    for name in ("B", "A"):
        assert dstack.ok("secrets", "set", name, input=VALUE + "\n") == ""
    assert dstack.ok("secrets", "list") == "A\nB\n"
    dstack.ok("secrets", "delete", "A")
    assert dstack.ok("secrets", "list", "--json") == '["B"]\n'
    assert dstack("secrets", "delete", "A").returncode == 2
    assert dstack("secrets", "set", "not a name", "x").returncode == 2


def test_the_prompt_does_not_echo(dstack: Dstack, run_task: RunTask) -> None:
    terminal = pexpect.spawn(
        dstack.binary, ["secrets", "set", "TOKEN"], env=dstack.env(), encoding="utf-8", timeout=60
    )
    terminal.expect("Value of TOKEN: ")
    terminal.waitnoecho()
    terminal.sendline(VALUE)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert VALUE not in (terminal.before or VALUE)
    done = run_task(TASK + "commands: ['printf %s \"$TOKEN\" | wc -c']")
    assert done.stdout.strip() == str(len(VALUE))


def test_it_is_masked_wherever_it_is_shown(dstack: Dstack, task: Task) -> None:
    dstack.ok("secrets", "set", "TOKEN", "abcdefghij")
    folder = task(
        TASK
        + """
    commands:
      - echo "$TOKEN $URL"
      - printf 'abcde'; sleep 0.3; printf 'fghij abcd'; sleep 0.3; printf 'x\\n'
      - test "$TOKEN" = abcdefghi''j && echo equal
    """
    )
    expected = "*** https://me:***@example.org\n*** abcdx\nequal\n"
    assert dstack.ok("run", folder) == expected
    assert dstack.ok("logs", "keeper") == expected
    assert dstack.ok("attach", "keeper") == expected
    assert dstack.ok("logs", "keeper", "--tail", "2") == "*** abcdx\nequal\n"


def test_it_is_nowhere_else(dstack: Dstack, task: Task, printed: Callable[[str, str], str]) -> None:
    dstack.ok("secrets", "set", "TOKEN", input=VALUE)
    folder = task(
        TASK
        + "commands: ['test -n \"$TOKEN\" && echo begun', 'while [ ! -e go ]; do sleep 0.05; done']"
    )
    dstack.ok("run", folder, "-d")
    printed("keeper", "begun")
    try:
        assert VALUE.encode() not in command_lines()
        assert files_with(dstack.home, VALUE) == []
        shown = dstack.ok("ps", "keeper", "-v") + dstack.ok("ps", "keeper", "--json")
        assert VALUE not in shown
        assert VALUE not in dstack.ok("run", folder, "--dry-run", "-n", "other")
    finally:
        dstack.ok("stop", "keeper", "-x")
    assert files_with(dstack.home, VALUE) == []


def test_a_variable_taken_by_name_is_not_written_either(dstack: Dstack, task: Task) -> None:
    folder = task('env: [MINE]\ncommands: [\'test "$MINE" = "$(cat expected)" && echo equal\']')
    (folder / "expected").write_text(VALUE)
    assert dstack.ok("run", folder, env={"MINE": VALUE}) == "equal\n"
    # The folder's own file holds it, and so do the store of code and the run's copy.
    found = [Path(path) for path in files_with(dstack.home, VALUE)]
    assert {path.name for path in found if dstack.home / "code" not in path.parents} == {"expected"}


def test_a_missing_one_and_one_in_a_command_are_errors(run_task: RunTask) -> None:
    done = run_task(
        """
        env: ['A=${{ secrets.MISSING }}']
        commands: ['echo ${{ secrets.TOKEN }}']
        setup: ['echo ${{ nothing.here }}', 'echo ${{ broken']
        """
    )
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert [line.split(":")[1] for line in lines if line.startswith(".dstack.yml:")] == [
        "2", "3", "4", "4",
    ]  # fmt: skip
    assert "MISSING" in done.stderr
    assert "env" in done.stderr.split(":3:")[1]
