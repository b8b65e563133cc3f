"""Which file is meant, and what is said when it is not there or not called as it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.config.load import find_task_file, read_file
from dstack.errors import UsageError


def refused(directory: Path, given: str | None, cwd: Path) -> tuple[str, str | None]:
    with pytest.raises(UsageError) as caught:
        find_task_file(directory, given, cwd)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize("name", [".dstack.yml", ".dstack.yaml"])
def test_the_folders_default(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "other.dstack.yml").touch()
    assert find_task_file(tmp_path, None, Path("/")) == tmp_path / name


def test_two_defaults_are_an_error(tmp_path: Path) -> None:
    (tmp_path / ".dstack.yml").touch()
    (tmp_path / ".dstack.yaml").touch()
    message, _ = refused(tmp_path, None, tmp_path)
    assert message == f"{tmp_path} has both .dstack.yml and .dstack.yaml"


def test_a_named_file_is_relative_to_where_the_user_stands(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "train.dstack.yaml").touch()
    found = find_task_file(tmp_path, "train.dstack.yaml", here)
    assert found == here / "train.dstack.yaml"
    assert find_task_file(tmp_path, str(found), tmp_path) == found


@pytest.mark.parametrize(
    "name", ["train.yml", "dstack.yml", ".dstack.yml.txt", ".dstack", "x.json"]
)
def test_another_name_is_refused_with_the_rule(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    message, _ = refused(tmp_path, name, tmp_path)
    assert message == (
        f"{name} cannot be a task file: a task file is called .dstack.yml or NAME.dstack.yml"
    )


def test_a_missing_default_names_what_is_there(tmp_path: Path) -> None:
    assert refused(tmp_path, None, tmp_path) == (
        f"there is no .dstack.yml in {tmp_path}",
        "dstack init writes a first one",
    )
    (tmp_path / "b.dstack.yml").touch()
    (tmp_path / "a.dstack.yaml").touch()
    assert refused(tmp_path, None, tmp_path)[1] == (
        "name one of those that are there with -f: a.dstack.yaml, b.dstack.yml"
    )


def test_a_missing_named_file_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.dstack.yml").touch()
    assert refused(tmp_path, "b.dstack.yml", tmp_path) == (
        "there is no file b.dstack.yml",
        "there are: a.dstack.yml",
    )


def test_a_folder_that_is_not_there_or_is_a_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "x", None, tmp_path)[0] == f"{tmp_path / 'x'} is not there"
    file = tmp_path / "train.dstack.yml"
    file.touch()
    message, hint = refused(file, None, tmp_path)
    assert message == f"{file} is not a folder"
    assert hint == "dstack run FOLDER -f train.dstack.yml"
    assert "is a folder" in refused(tmp_path, ".", tmp_path)[0]


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / ".dstack.yml"
    file.write_bytes(b"x")
    assert read_file(file, "f") == b"x"
    for path, message in ((tmp_path, "f is not a file"), (tmp_path / "y", "there is no file f")):
        with pytest.raises(UsageError, match=message):
            read_file(path, "f")
