"""`validate`, `schema` and `init`, called as the command line calls them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType

import pytest

from dstack.cli import init, schema, validate
from dstack.config.load import Context, load_task
from dstack.errors import UsageError

GOLDEN = Path(__file__).parents[2] / "golden" / "validate"


def call(command: ModuleType, *argv: str) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    code: int = command.run(parser.parse_args(argv))
    return code


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_validate_says_everything_as_in_the_golden_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(GOLDEN)
    assert call(validate, "wrong.dstack.yml") == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", (GOLDEN / "wrong.txt").read_text())


def test_validate_takes_many_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.dstack.yml").write_text("type: task\ncommands: [x]\n")
    Path("profiles.yml").write_text("profiles: [{name: a, defaults: true}]\n")
    Path("x.yml").write_text("type: task\n")
    assert call(validate, "a.dstack.yml", "profiles.yml", "x.yml", "y.dstack.yml") == 2
    out, err = capsys.readouterr()
    assert out == "a.dstack.yml: ok\n"
    assert err.splitlines() == [
        "profiles.yml:1:22: profiles.defaults: there is no such property",
        '  hint: did you mean "default"?',
        "x.yml:1:1: x.yml cannot be a task file: a task file is called .dstack.yml or "
        "NAME.dstack.yml",
        "  hint: rename it (.yaml is fine too)",
        "y.dstack.yml:1:1: there is no file y.dstack.yml",
    ]


def test_validate_a_folder_is_all_that_its_runs_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sub").mkdir()
    for name in ("sub/.dstack.yml", "sub/more.dstack.yml"):
        Path(name).write_text("type: task\ncommands: [x]\n")
    Path(".dstack").mkdir()
    Path(".dstack/profiles.yml").write_text("profiles: [{name: a, defaults: true}]\n")
    assert call(validate, "sub") == 2
    out, err = capsys.readouterr()
    assert out == "sub/.dstack.yml: ok\nsub/more.dstack.yml: ok\n"
    assert err.startswith(".dstack/profiles.yml:1:22: profiles.defaults: there is no such")
    monkeypatch.chdir("sub")
    assert call(validate) == 2
    out, err = capsys.readouterr()
    assert out == ".dstack.yml: ok\nmore.dstack.yml: ok\n"
    assert err.startswith("../.dstack/profiles.yml:1:22: profiles.defaults: there is no such")


def test_validate_refuses_the_folders_that_runs_do(capsys: pytest.CaptureFixture[str]) -> None:
    task = "type: task\ncommands: [x]\n"
    Path("more.dstack.yml").write_text(task)
    Path("folder.dstack.yml").mkdir()
    assert call(validate) == 0
    assert capsys.readouterr().out == "more.dstack.yml: ok\n"
    Path(".dstack.yml").symlink_to("nowhere")
    assert call(validate) == 2
    Path(".dstack.yml").unlink()
    for name in (".dstack.yml", ".dstack.yaml"):
        Path(name).write_text(task)
    with pytest.raises(UsageError, match="has both"):
        call(validate)


def test_validate_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(validate, "nowhere") == 2
    assert capsys.readouterr().err == "nowhere:1:1: there is no file nowhere\n"


def test_validate_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".dstack.yml").write_text("type: task\ncommands: [x]\nports: [0]\ncomands: x\n")
    assert call(validate, "--json") == 2
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == [
        {
            "file": ".dstack.yml",
            "line": 3,
            "column": 9,
            "property": "ports",
            "message": '"0": 0 is not between 1 and 65535',
            "hint": None,
        },
        {
            "file": ".dstack.yml",
            "line": 4,
            "column": 1,
            "property": "comands",
            "message": "there is no such property",
            "hint": 'did you mean "commands"?',
        },
    ]


def test_validate_without_a_file_to_check() -> None:
    with pytest.raises(UsageError, match=r"no \.dstack\.yml"):
        call(validate)


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(schema) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["type"]
    assert call(schema, "--profiles") == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["profiles"]


def test_init_writes_a_file_that_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(init) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "wrote .dstack.yml\nnext: dstack run .\n")
    assert load_task(Path(".dstack.yml").read_bytes(), "f", Context()).commands


def test_inits_examples_are_right_when_they_are_uncommented() -> None:
    lines = init.FIRST.splitlines()
    start = lines.index("# Uncomment what you need.")
    # What is a sentence ends in a full stop; what is YAML does not.
    examples = [line[2:] for line in lines[start:] if line and line[-1] != "."]
    text = "\n".join([*lines[:start], *examples])
    task = load_task(text.encode(), "f", Context())
    assert (task.name, task.python, len(task.env), len(task.ports)) == ("hello", "3.12", 3, 2)
    assert task.settings.max_duration == 10800


@pytest.mark.parametrize("name", [".dstack.yml", ".dstack.yaml"])
def test_init_never_overwrites(here: Path, name: str) -> None:
    Path(name).write_text("mine")
    with pytest.raises(UsageError, match="already there"):
        call(init)
    assert Path(name).read_text() == "mine"
    assert len(list(here.iterdir())) == 1


def test_init_elsewhere() -> None:
    Path("sub").mkdir()
    assert call(init, "sub") == 0
    assert Path("sub/.dstack.yml").is_file()
    with pytest.raises(UsageError, match="no folder"):
        call(init, "nowhere")
