"""Ten thousand files, and large ones, without one traceback."""

from __future__ import annotations

import pytest

from dstack.config.source import MAX_BYTES
from tests.unit.config.fuzz import attempt, mutated

SIZE = 100_000  # what costs the square of a file's size takes minutes at this one


@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_files_end_in_a_task_or_in_sentences(seed: int) -> None:
    outcomes = {attempt(source) for source in mutated(seed=1000 + seed, count=1000)}
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("start", "unit", "right"),
    [
        ("type: task\ncommands:\n", "  - a\n", True),
        ("type: task\ncommands:\n  - |\n", "    a b c ${{ run.args }}\n", True),
        ("type: task\ncommands: [x]\nenv:\n  - 'A=", "${", True),
        ("type: task\ncommands: [x]\nenv:\n  - 'A=", "$A", True),
        ("type: task\ncommands:\n  - |\n    ", "${{ a.b }} ", False),
        ("type: task\ncommands:\n  - '", "$${{", True),
        ("", "{n}: x\n", False),
        ("", "a: x\n", False),
        ("type: task\ncommands: [x]\nports:\n", "  - 80\n", False),
        ("type: task\ncommands: [x]\ncache:\n", "  - ../x\n", False),
        ("a: &a [x]\nb: [", "*a,", False),
        ("", "[", False),
        ("", "? ", False),
        ("", "x", False),
        ("", "\x01", False),
        ("type: task\nmax_duration: ", "9", False),
    ],
)
def test_a_large_file_is_read_or_refused(start: str, unit: str, right: bool) -> None:
    count = (SIZE - len(start) - 9) // len(unit.replace("{n}", "999999"))
    body = "".join(unit.replace("{n}", str(n)) for n in range(count))
    end = "'\n" if start.endswith(("'A=", "- '")) else "\n"
    assert attempt(f"{start}{body}{end}".encode(), many=True) is right


def test_a_file_may_have_a_mebibyte_and_no_more() -> None:
    start = b"type: task\ncommands:\n  - |\n    : "
    assert attempt(start + b"x" * (MAX_BYTES - len(start)))
    assert not attempt(start + b"x" * (MAX_BYTES + 1 - len(start)))
