"""`dstack secrets` with pipes and with a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from dstack.paths import Home
from dstack.store.database import Database
from dstack.store.secrets import Vault

SOURCE = Path(sys.modules["dstack"].__file__ or "").parent.parent
PROGRAM = [sys.executable, "-c", "import sys; from dstack.cli.main import main; sys.exit(main())"]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "DSTACK_HOME": str(home), "PYTHONPATH": str(SOURCE)}


def dstack(home: Path, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, "secrets", *args],
        input=stdin,
        env=environment(home),
        capture_output=True,
        timeout=60,
        check=False,
    )


def value_of(home: Path, name: str) -> str:
    database = Database(Home(home))
    try:
        return Vault(Home(home), database).get_many([name])[name]
    finally:
        database.close()


@pytest.mark.parametrize(
    ("stdin", "value"),
    [(b"x\n", "x"), (b"x", "x"), (b"two\nlines\n\n", "two\nlines\n"), (b"\xff", "\udcff")],
)
def test_stdin_loses_one_newline(tmp_path: Path, stdin: bytes, value: str) -> None:
    done = dstack(tmp_path, "set", "TOKEN", stdin=stdin)
    assert (done.returncode, done.stdout) == (0, b"")
    assert value_of(tmp_path, "TOKEN") == value


def test_set_list_delete(tmp_path: Path) -> None:
    assert dstack(tmp_path, "set", "B", "hunter2").returncode == 0
    assert dstack(tmp_path, "set", "A", "--", "-dash").returncode == 0
    assert value_of(tmp_path, "A") == "-dash"
    assert dstack(tmp_path, "list").stdout == b"A\nB\n"
    assert json.loads(dstack(tmp_path, "list", "--json").stdout) == ["A", "B"]
    assert dstack(tmp_path, "delete", "B").returncode == 0
    gone = dstack(tmp_path, "delete", "B")
    assert gone.returncode == 2
    assert gone.stderr.startswith(b"error: there is no secret called B\nhint: ")
    assert dstack(tmp_path, "list").stdout == b"A\n"


@pytest.mark.parametrize(
    ("name", "stdin", "why"),
    [("A-B", b"x", b"name"), ("A", b"\n", b"empty"), ("A", b"x" * 70000, b"larger than 64 KB")],
)
def test_bad_ones_are_refused(tmp_path: Path, name: str, stdin: bytes, why: bytes) -> None:
    done = dstack(tmp_path, "set", name, stdin=stdin)
    assert done.returncode == 2
    assert why in done.stderr
    assert b"Traceback" not in done.stderr
    assert dstack(tmp_path, "list").stdout == b""


def test_a_terminal_is_asked_without_echo(tmp_path: Path) -> None:
    child = pexpect.spawn(
        PROGRAM[0],
        [*PROGRAM[1:], "secrets", "set", "TOKEN"],
        env={**environment(tmp_path), "TERM": "dumb"},
        encoding="utf-8",
        timeout=60,
    )
    try:
        child.expect_exact("Value of TOKEN: ")
        child.sendline("hunter2")
        child.expect_exact("secret TOKEN set")
        assert "hunter2" not in str(child.before)
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 0
    assert value_of(tmp_path, "TOKEN") == "hunter2"
