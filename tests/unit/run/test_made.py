"""From the lists of `find` to what a build left and read."""

from __future__ import annotations

from dstack.run.made import Made, Seen, made_of, names

FOLDERS = {b"", b"sub", b"cache"}
FILES = {b"a", b"b", b"sub/c"}


def made(
    *,
    folders: set[bytes] | None = None,
    files: set[bytes] | None = None,
    read: set[bytes] | None = None,
    changed: set[bytes] | None = None,
) -> Made:
    seen = Seen(
        folders=frozenset(FOLDERS),
        files=frozenset(FILES),
        after_folders=frozenset(FOLDERS if folders is None else folders),
        after_files=frozenset(FILES if files is None else files),
        read=frozenset(read or ()),
        changed=frozenset(changed or ()),
    )
    return made_of(seen, [b"cache"])


def test_nothing_happened() -> None:
    assert made() == Made((), (), frozenset())


def test_what_is_read_is_an_input_and_stays_where_it_is() -> None:
    assert made(read={b"a", b""}) == Made((), (), frozenset({b"a", b""}))


def test_a_new_file_is_moved_and_the_folder_it_is_in_is_not() -> None:
    found = made(files=FILES | {b"sub/new"}, changed={b"sub", b"sub/new"})
    assert found == Made((b"sub/new",), (), frozenset())


def test_a_new_folder_is_moved_as_a_whole_whatever_is_in_it() -> None:
    # What was moved there with its folder has no new status itself.
    found = made(
        folders=FOLDERS | {b"new", b"new/in", b"new-er"},
        files=FILES | {b"new/in/f", b"new-er/x", b"newest"},
        changed={b"", b"new", b"newest", b"new-er", b"new-er/x"},
    )
    assert set(found.moves) == {b"new", b"new-er", b"newest"}


def test_a_file_that_was_written_to_is_an_input_and_is_laid_again() -> None:
    assert made(changed={b"a"}) == Made((b"a",), (b"a",), frozenset({b"a"}))


def test_what_was_deleted_is_an_input_and_is_deleted_again() -> None:
    found = made(folders={b"", b"cache"}, files={b"a", b"b"}, changed={b""})
    assert found == Made((), (b"sub", b"sub/c"), frozenset({b"sub", b"sub/c"}))


def test_a_folder_in_place_of_a_file_and_the_other_way_round() -> None:
    found = made(
        folders={b"", b"a", b"cache"}, files={b"a/x", b"b", b"sub"}, changed={b"", b"a", b"sub"}
    )
    assert found.moves == (b"a", b"sub")
    assert set(found.gone) == {b"a", b"sub", b"sub/c"}


def test_a_change_of_mode_in_a_folder_alone_is_nothing_to_be_kept() -> None:
    assert made(changed={b"sub"}).moves == ()


def test_caches_are_no_part_of_it() -> None:
    found = made(folders=FOLDERS | {b"cache/x"}, files=FILES | {b"cache/x/y"}, changed={b"cache"})
    assert found == Made((), (), frozenset())
    assert made(folders={b"", b"sub"}, files=FILES | {b"cache"}, changed={b"cache"}).moves == ()


def test_names_as_find_writes_them() -> None:
    assert names(b".\0./a\0./sub/b c\0./n\nl\0") == {b"", b"a", b"sub/b c", b"n\nl"}
    assert names(b"") == frozenset()
