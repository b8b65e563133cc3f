"""The shell script that puts large files together on the host: commands behind `assemble.sh`.

`lay.sh` runs it in the folder above `staging`; what it makes lies in `staging/large/files`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from .differ import Copy
from .parts import EXECUTABLE, Large

_BLOCK = 1 << 20  # bytes that dd takes at a time; `assemble.sh` has the same


def assembly(large: Iterable[Large]) -> bytes:
    """The commands for all of them; nothing where there is none."""
    lines = [line for each in large for line in _commands(each)]
    if not lines:
        return b""
    return (Path(__file__).parent / "assemble.sh").read_bytes() + b"\n".join(lines) + b"\n"


def _commands(large: Large) -> Iterator[bytes]:
    name = large.change.name
    target = b"staging/large/files/" + name
    steps = b" && ".join(_steps(large)) or b":"
    copied = any(isinstance(step, Copy) for step in large.steps)
    old = b"<%b " % quote(b"files/" + name) if copied else b""
    mode = b"755" if large.change.mode == EXECUTABLE else b"644"
    # Not by `set -e`: shells do not agree on what it does in a subshell that has an `||` behind it.
    yield b"mkdir -p %b || exit 1" % quote(target.rpartition(b"/")[0])
    yield b"{ %b; } %b>%b || exit 1" % (steps, old, quote(target))
    yield b"chmod %b %b || exit 1" % (mode, quote(target))


def _steps(large: Large) -> Iterator[bytes]:
    """One command for each step; consecutive parts are one. The old file is their stdin."""
    parts: list[bytes] = []
    at = 0  # in the old file
    for step in large.steps:
        if not isinstance(step, Copy):
            parts.append(b"staging/%b/piece" % step.name.encode())
            continue
        if parts:
            yield b"cat " + b" ".join(parts)
            parts = []
        if step.old > at:
            yield b"skip %d %d" % divmod(step.old - at, _BLOCK)
        yield b"keep %d %d" % divmod(step.size, _BLOCK)
        at = step.old + step.size
    if parts:
        yield b"cat " + b" ".join(parts)


def quote(text: bytes) -> bytes:
    """A literal for a POSIX shell."""
    return b"'" + text.replace(b"'", b"'\\''") + b"'"
