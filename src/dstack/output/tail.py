"""Finding the last lines of a log without reading what stands before them."""

from __future__ import annotations

from pathlib import Path

_BLOCK = 64 << 10


def tail_offset(path: Path, lines: int) -> tuple[int, int]:
    """Where the last `lines` lines of a file begin, and how many there are (at most `lines`).

    A last line without a line end counts. A file that is not there has no lines.
    """
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return 0, 0
    with file:
        end = file.seek(0, 2)
        if lines <= 0 or end == 0:
            return end, 0
        file.seek(end - 1)
        closed = file.read(1) == b"\n"
        seen = 0
        # The line end that closes the last line begins no other.
        wanted = lines + closed
        while end > 0:
            start = max(0, end - _BLOCK)
            file.seek(start)
            block = file.read(end - start)
            count = block.count(b"\n")
            if seen + count >= wanted:
                return start + _nth_last(block, wanted - seen) + 1, lines
            seen += count
            end = start
    return 0, seen + (not closed)


def _nth_last(block: bytes, nth: int) -> int:
    """Where the `nth` line end from the end of `block` stands."""
    at = len(block)
    for _ in range(nth):
        at = block.rfind(b"\n", 0, at)
    return at
