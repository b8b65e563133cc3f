"""Trees of files on a real disk: what is damaged or cannot be written is only not there."""

from __future__ import annotations

from pathlib import Path

from dstack.paths import Home
from dstack.store.parsed import ParsedFiles

KEY = "ab" + "0" * 38


def test_what_is_kept_is_recalled(tmp_path: Path) -> None:
    files = ParsedFiles(Home(tmp_path))
    assert files.recall(KEY) is None
    files.keep(KEY, b"a\nb")
    assert files.recall(KEY) == b"a\nb"
    files.keep("ab" + "1" * 38, b"another of that slot")
    assert files.recall(KEY) is None
    assert [path.name for path in (tmp_path / "parsed").iterdir()] == ["ab"]


def test_what_is_damaged_is_not_recalled(tmp_path: Path) -> None:
    files = ParsedFiles(Home(tmp_path))
    files.keep(KEY, b"data")
    (slot,) = (tmp_path / "parsed").iterdir()
    whole = slot.read_bytes()
    for damaged in (whole[:-1], whole[:10], b"", whole.replace(b"data", b"dada")):
        slot.write_bytes(damaged)
        assert files.recall(KEY) is None


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "parsed").write_text("a file")
    files = ParsedFiles(Home(tmp_path))
    files.keep(KEY, b"data")
    assert files.recall(KEY) is None
