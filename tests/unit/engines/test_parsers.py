"""What commands print is read by pure functions."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dstack.engines.interpreters import parse_pythons
from dstack.engines.outcome import parse_exit
from dstack.hosts.base import ProcessId
from dstack.hosts.environment import find_program, passed_through
from dstack.run.model import Exit
from tests.characters import ANY


def test_exit() -> None:
    text = (
        "code=137\nreason=oom\nsignal=9\noom=true\nstage=commands\nindex=2\ndetail=\n" + " " * 500
    )
    assert parse_exit(text, 5.0) == Exit(
        code=137, reason="oom", signal=9, oom=True, stage="commands", index=2, at=5.0
    )
    said = parse_exit("code=125\nreason=start_failed\nstage=environment\nindex=0\ndetail=a=b\n", 0)
    assert said == Exit(125, "start_failed", stage="environment", detail="a=b", at=0)
    assert "restarted" in str(parse_exit("code=137\nreason=host_restarted\n", None).detail)


@given(st.text(ANY))
def test_a_damaged_exit_is_no_error(text: str) -> None:
    found = parse_exit(text, None)
    assert (found.code, found.reason) == (137, "killed")


def test_pythons() -> None:
    text = (
        "3.11 /usr/bin/python3.11\n"
        "3.10.2 /p/3.10.2/bin/python3.10\n"
        "3.10.13 /p/3.10.13/bin/python3.10\n"
        "3.9 /usr/bin/python3.9\n"
        "3.14.0rc1 /p/rc/bin/python3.14\n"
        "3.14.0 /p/3.14.0/bin/python3.14\n"
        "garbage\n3 /x\n3.8 relative\n"
    )
    assert parse_pythons(text) == {
        "3.9": "/usr/bin/python3.9",
        "3.10": "/p/3.10.13/bin/python3.10",
        "3.11": "/usr/bin/python3.11",
        "3.14": "/p/3.14.0/bin/python3.14",
    }
    assert list(parse_pythons(text)) == ["3.9", "3.10", "3.11", "3.14"]


def test_process_id() -> None:
    assert ProcessId.parse("12:345:boot") == ProcessId(12, "345", "boot")
    assert ProcessId.parse("12::") == ProcessId(12)


def test_what_passes_through() -> None:
    environ = {
        "https_proxy": "p",
        "UV_INDEX_URL": "i",
        "UV_PYTHON": "3.8",
        "PIP_TARGET": "t",
        "LC_ALL": "C",
        "AWS_SECRET_ACCESS_KEY": "s",
        "DSTACK_RUN_ID": "outer",
        "VIRTUAL_ENV": "v",
    }
    assert passed_through(environ) == {"https_proxy": "p", "UV_INDEX_URL": "i", "LC_ALL": "C"}


def test_a_program_is_a_file_that_can_be_run_in_an_absolute_folder(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    for folder in (first, second, third):
        folder.mkdir()
    (first / "tool").mkdir()
    (second / "tool").write_text("")
    (third / "tool").write_text("")
    (third / "tool").chmod(0o755)
    relative = os.path.relpath(third)
    assert find_program("tool", f"{relative}::{first}:{second}") is None
    assert find_program("tool", f"{first}:{second}:{third}") == str(third / "tool")
