"""What is sent of a change: parts named by their content, and the middle of large files."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.snapshot import differ
from dstack.snapshot.parts import (
    Change,
    Delta,
    assembly,
    gone_folders,
    parse_changes,
    plan_sending,
    with_parents,
)

TEXT = st.text("ab", max_size=40).map(str.encode)


def reader(data: bytes) -> Callable[[int], bytes]:
    return io.BytesIO(data).read


@given(TEXT, TEXT, TEXT, TEXT)
def test_head_middle_and_tail_make_the_new_one(
    head: bytes, old: bytes, new: bytes, tail: bytes
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(differ, "PIECE", 7)
        one, other = head + old + tail, head + new + tail
        begin = differ.common_head(reader(one), reader(other))
        end = differ.common_tail(reader(one), reader(other), len(one), len(other), begin)
    assert begin >= len(head)
    assert begin + end <= min(len(one), len(other))
    assert one[:begin] + other[begin : len(other) - end] + one[len(one) - end :] == other


def change(name: str, blob: str, status: str = "M", mode: str = "100644") -> Change:
    return Change(
        name.encode(), b"100644", mode.encode(), b"0" * 40, blob.encode(), status.encode()
    )


def test_raw_differences_are_read() -> None:
    raw = b":100644 100755 aa bb M\0a b\0:000000 120000 00 cc A\0n\nl\0"
    found = parse_changes(raw)
    assert [(c.name, c.mode, c.blob, c.status) for c in found] == [
        (b"a b", b"100755", b"bb", b"M"),
        (b"n\nl", b"120000", b"cc", b"A"),
    ]


def test_a_part_does_not_change_when_another_file_does() -> None:
    files = [change(f"f{n:04}", f"{n * 7919 % 65536:040x}"[::-1], "A") for n in range(3000)]
    sizes = {c.blob: 5000 for c in files}
    before = {part.name for part in plan_sending(files, sizes, {}).parts()}
    new = change("f0001x", "ab" * 20, "A")
    after = plan_sending([*files[:2], new, *files[2:]], {**sizes, new.blob: 5000}, {}).parts()
    assert len(before) > 10
    assert len({part.name for part in after} - before) <= 2


def test_what_is_replaced_goes_first() -> None:
    changes = [change("new", "aa", "A"), change("old", "bb"), change("gone", "00", "D")]
    sending = plan_sending(changes, {b"aa": 1, b"bb": 1}, {}, [b"folder"])
    assert sending.gone == (b"old", b"gone", b"folder")
    assert [c.name for part in sending.small for c in part.files] == [b"new", b"old"]


def test_a_large_file_is_put_together() -> None:
    large = change("it's", "aa", mode="100755")
    delta = Delta(b"bb", head=10, middle=9 << 20, tail=20)
    sending = plan_sending([large], {b"aa": 30 + (9 << 20)}, {b"it's": delta})
    parts = sending.large[0].parts
    assert [(p.piece.start, p.piece.size) for p in parts if p.piece] == [
        (10, 8 << 20),
        (10 + (8 << 20), 1 << 20),
    ]
    script = assembly(sending.large).decode()
    assert "{ head -c 10 'files/it'\\''s' && cat staging/" in script
    assert "tail -c 20 'files/it'\\''s'; } >'staging/large/files/it'\\''s'" in script
    assert script.endswith("chmod 755 'staging/large/files/it'\\''s'\n")


def test_folders_that_are_gone() -> None:
    old = with_parents([b"a/b/c", b"d", b"e/f"])
    assert gone_folders(old, with_parents([b"d", b"e"])) == [b"a", b"e/f"]
