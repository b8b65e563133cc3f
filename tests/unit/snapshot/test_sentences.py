"""What is said of large and of refused files, and what git is given to know."""

from __future__ import annotations

import pytest

from dstack.snapshot.store import clean_environ
from dstack.snapshot.update import _few, _git_refuses, _large

GB = 1024**3


def test_the_largest_file_is_named() -> None:
    sizes = {b"data/train.bin": 11 * GB // 10, b"a.py": GB // 10}
    assert _large(sizes, sum(sizes.values())) == (
        "uploading 1.2 GB; largest: data/train.bin 1.1 GB"
        " — add it to .gitignore if the run does not need it"
    )


def test_where_no_file_matters_the_largest_folder_is_named() -> None:
    sizes = {b"data/%d.png" % number: GB // 100 for number in range(100)} | {b"a.py": GB // 100}
    assert "; largest: data/ 1 GB — add" in _large(sizes, sum(sizes.values()))


@pytest.mark.parametrize("name", [b".git", b"a/.git/x", b".GIT/x", b"a/.Git"])
def test_names_of_gits_own(name: bytes) -> None:
    assert _git_refuses(name, link=False)


@pytest.mark.parametrize("name", [b"git", b".gitignore", b".github/x", b"a.git/x", b".gitmodules"])
def test_names_that_only_look_like_it(name: bytes) -> None:
    assert not _git_refuses(name, link=False)


def test_a_link_called_gitmodules_is_refused() -> None:
    assert _git_refuses(b"a/.gitmodules", link=True)


def test_names_in_sentences_cannot_drive_a_terminal() -> None:
    assert _few([b"a", b"\x1b[2J", b"c", b"d", b"e"]) == "a, \\x1b[2J, c and 2 more"


def test_git_sees_nothing_of_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("OTHER", "kept")
    environ = clean_environ()
    assert environ["OTHER"] == "kept"
    assert environ["GIT_OPTIONAL_LOCKS"] == "0"
    assert not {"GIT_DIR", "GIT_CONFIG_COUNT"} & environ.keys()
