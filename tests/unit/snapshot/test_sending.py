"""What is sent of a change: parts named by their content, and what is new of large files."""

from __future__ import annotations

from dstack.snapshot.assembly import assembly
from dstack.snapshot.differ import Copy
from dstack.snapshot.parts import (
    Change,
    gone_folders,
    parse_changes,
    plan_sending,
    with_parents,
)


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
    mega = 1 << 20
    size = 10 + 9 * mega + 5 * mega + 7
    copied = [Copy(0, 0, 10), Copy(mega + 30, 10 + 9 * mega, 5 * mega)]
    sending = plan_sending([large], {b"aa": size}, {b"it's": copied})
    parts = sending.large[0].parts
    assert [(p.piece.start, p.piece.size) for p in parts if p.piece] == [
        (10, 8 * mega),
        (10 + 8 * mega, mega),
        (size - 7, 7),
    ]
    one, two, three = (f"staging/{part.name}/piece" for part in parts)
    script = assembly(sending.large).decode()
    assert (
        f"{{ keep 0 10 && cat {one} {two} && skip 1 20 && keep 5 0 && cat {three}; }}"
        " <'files/it'\\''s' >'staging/large/files/it'\\''s' || exit 1\n"
    ) in script
    assert script.endswith("chmod 755 'staging/large/files/it'\\''s' || exit 1\n")


def test_a_large_file_that_shrank_needs_nothing_new() -> None:
    sending = plan_sending([change("a", "aa")], {b"aa": 1 << 20}, {b"a": [Copy(0, 0, 1 << 20)]})
    assert sending.large[0].parts == ()
    assert b"{ keep 1 0; } <'files/a' >'staging/large/files/a'" in assembly(sending.large)


def test_folders_that_are_gone() -> None:
    old = with_parents([b"a/b/c", b"d", b"e/f"])
    assert gone_folders(old, with_parents([b"d", b"e"])) == [b"a", b"e/f"]
