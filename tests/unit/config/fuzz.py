"""Mutated task files, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from dstack.config.load import Context, load_profiles, load_task
from dstack.config.profile import PROFILE
from dstack.config.task import TASK
from dstack.errors import FileErrors, Problem, UsageError

SPICE = [
    b"\t",
    b"\0",
    b"\xff",
    b"*",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"${{ run.args }}",
    b"${{ ",
    b"}}",
    b"$${{",
    b"${{ secrets.X }}",
    b": ",
    b"- ",
    b"[",
    b"]",
    b"{",
    b"}",
    b"'",
    b'"',
    b"|",
    b">",
    b"!",
    b"%",
    b"@",
    b"\n",
    b"\r\n",
    b"\xe2\x80\xa8",
    b"\xf0\x9f\x8d\x8e",
    b"null",
    b"~",
    b"---\n",
    b"...\n",
    b"#",
    b"? ",
    b"\\",
    b"9" * 400,
    b"[" * 60,
    b"- " * 60,
    b"..",
    b"-1",
    b"1e999",
    b"nan",
    b"\xef\xbb\xbf",
    b"\x1b",
    b"!!binary ",
    b"!!python/object:os.system ",
    b'"\\0"',
    b'"\\ud800"',
    b"/",
    b"GB",
]
BASE = b"type: task\ncommands:\n  - |\n    a ${{ run.args }}\n  - b\n"


def _seed_files() -> list[bytes]:
    parts = [each.example for name, each in TASK.items() if name not in ("type", "commands")]
    whole = BASE + "\n".join(parts).encode() + b"\n"
    single = [BASE + part.encode() + b"\n" for part in parts]
    profile = "\n  ".join(each.example for each in PROFILE.values())
    return [whole, *single, b"profiles:\n- " + profile.encode() + b"\n"]


def mutated(seed: int, count: int) -> Iterator[bytes]:
    """`count` files: right ones with one to four places cut, doubled, moved or spiced."""
    rng = random.Random(seed)
    files = _seed_files()
    for _ in range(count):
        data = rng.choice(files)
        for _ in range(rng.randint(0, 4)):
            start = rng.randint(0, len(data))
            end = min(len(data), start + rng.choice((0, 1, 2, 5, 20)))
            piece = rng.choice((b"", rng.choice(SPICE), data[start:end] * 2, rng.randbytes(2)))
            data = data[:start] + piece + data[end:]
        yield data


def attempt(source: bytes, *, many: bool = False) -> bool:
    """Read it as a task and as profiles; whether one of them could be read.

    Anything but the two errors that files may raise is the caller's failure. `many`: only the
    first thousand problems are looked at.
    """
    right = False
    for read in (
        lambda: load_task(source, "f", Context(args=("a",), secrets=frozenset({"Y"}))),
        lambda: load_task(source, "f", Context(check_args=False)),
        lambda: load_profiles(source, "f"),
    ):
        try:
            read()
            right = True
        except FileErrors as errors:
            _check(errors.problems[: 1000 if many else None], source)
        except UsageError as error:
            if "does not use the arguments" not in error.message:
                raise
    return right


def _check(problems: list[Problem], source: bytes) -> None:
    lines = source.count(b"\n") + source.count(b"\r") + 3 * source.count(b"\xe2\x80\xa8") + 2
    assert problems
    for problem in problems:
        assert 1 <= problem.line <= lines + source.count(b"\xc2\x85"), problem
        assert 1 <= problem.column <= len(source) + 2, problem
        text = str(problem)
        assert text.count("\n") == (1 if problem.hint else 0), text
        assert "yaml.org" not in text or b"yaml.org" in source
        assert len(text) < 600
