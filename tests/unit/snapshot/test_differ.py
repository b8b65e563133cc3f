"""What two versions of a large file have in common, whatever was done to it."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.snapshot import differ
from dstack.snapshot.differ import Copy, common_tail, copies

TEXT = st.text("ab", max_size=40).map(str.encode)
SMALL = {"PIECE": 7, "WINDOWS": (4, 16), "LEAST": 3, "MOST": 5, "_WORD": 2, "_WORDS": 4}


def reader(data: bytes) -> Callable[[int], bytes]:
    return io.BytesIO(data).read


def made(old: bytes, new: bytes, found: list[Copy]) -> bytes:
    """The new version as a host makes it, going through the old one once."""
    result, at = b"", 0
    for copy in found:
        assert copy.old >= at, "the old one is read once, forward"
        at = copy.old + copy.size
        assert copy.new >= len(result)
        result += new[len(result) : copy.new] + old[copy.old : at]
    return result + new[len(result) :]


@given(TEXT, TEXT, TEXT, TEXT, TEXT)
def test_the_copies_make_the_new_one(
    head: bytes, old: bytes, common: bytes, new: bytes, tail: bytes
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(differ, name, value)
        one, other = head + old + common + tail, head + new + common + tail
        found = copies(reader(one), reader(other))
    assert made(one, other, found) == other
    assert all(copy.size >= 3 for copy in found)


@given(TEXT, TEXT, TEXT, st.integers(0, 60))
def test_the_end_in_common(old: bytes, new: bytes, tail: bytes, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(differ, "PIECE", 7)
        one, other = old + tail, new + tail
        end = common_tail(reader(one), reader(other), len(one), len(other), most)
    assert min(most, len(tail)) <= end <= most
    assert end == 0 or one[-end:] == other[-end:]
