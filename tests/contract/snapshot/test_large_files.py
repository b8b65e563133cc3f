"""What versions of files of megabytes have in common; tests/unit has it of a few bytes."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.snapshot.differ import LEAST, MOST, Copy, copies
from tests.unit.snapshot.test_differ import made, reader

BASE = random.Random(1).randbytes(3 << 20)
APART = 64 << 10  # bytes between edits, and from the last one to the end


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["change", "insert", "delete"]), st.integers(1, 5000)),
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_no_more_is_sent_than_what_changed(
    edits: list[tuple[str, int]], dice: random.Random
) -> None:
    new, at, changed = [], 0, 0
    for kind, size in edits:
        step = APART + dice.randrange(5000)
        new.append(BASE[at : at + step])
        at += step
        if kind != "insert":
            at += size
        if kind != "delete":
            # Bytes that are not there: what is the same by chance is not taken for a copy.
            new.append(dice.randbytes(size))
            changed += size
    data = b"".join([*new, BASE[at:]])
    found = copies(reader(BASE), reader(data))
    assert made(BASE, data, found) == data
    assert len(data) - sum(copy.size for copy in found) <= changed


def test_lines_of_text() -> None:
    dice = random.Random(2)
    lines = [b"%d,%s,%d,0,0,0" % (n, dice.choice([b"red", b"blue"]), n % 7) for n in range(200_000)]
    old = b"\n".join(lines)
    lines[5] = b"another line"
    lines[100_000:100_010] = []
    lines.insert(150_000, b"a line more")
    lines[190_000] = b"the last one that differs"
    new = b"\n".join(lines)
    found = copies(reader(old), reader(new))
    assert made(old, new, found) == new
    assert len(new) - sum(copy.size for copy in found) < 200


@pytest.mark.parametrize("change", ["insert", "delete"])
def test_megabytes_may_come_or_go(change: str) -> None:
    more = random.Random(3).randbytes(7 << 20)
    one, other = BASE[: 1 << 20] + BASE[1 << 20 :], BASE[: 1 << 20] + more + BASE[1 << 20 :]
    if change == "delete":
        one, other = other, one
    found = copies(reader(one), reader(other))
    assert found == [
        Copy(0, 0, 1 << 20),
        *([Copy(1 << 20, 8 << 20, 2 << 20)] if change == "insert" else []),
        *([Copy(8 << 20, 1 << 20, 2 << 20)] if change == "delete" else []),
    ]


def test_of_very_many_copies_the_longest_are_taken() -> None:
    page = 4096
    data = bytearray(random.Random(4).randbytes((MOST + 200) * 5 * page))
    old = bytes(data)
    for n in range(MOST + 200):
        data[n * 5 * page] ^= 1
        if n < 300:  # these runs are a little shorter
            data[n * 5 * page + 100] ^= 1
    found = copies(reader(old), reader(bytes(data)))
    assert made(old, bytes(data), found) == data
    assert len(found) == MOST
    assert sum(copy.size == 5 * page - 1 for copy in found) == 400
    assert min(copy.size for copy in found) >= LEAST


def test_little_memory_however_large_the_files_are() -> None:
    size = 48 << 20

    def noise(seed: int) -> Callable[[int], bytes]:
        dice, left = random.Random(seed), size

        def read(count: int) -> bytes:
            nonlocal left
            count = min(count, left)
            left -= count
            return dice.randbytes(count)

        return read

    tracemalloc.start()
    try:
        assert copies(noise(1), noise(2)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100e6
