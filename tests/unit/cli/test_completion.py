"""Completion scripts are made from the parser: what can be typed can be completed."""

from __future__ import annotations

import argparse

import pytest

from dstack.cli import complete_words
from dstack.cli.completion import SHELLS, Command, full_parser, script
from dstack.cli.main import COMMANDS


@pytest.fixture(scope="module")
def root() -> Command:
    return Command(full_parser())


def at(root: Command, path: str) -> Command:
    return next(found for found in root.walk() if " ".join(found.path) == path)


def kinds(command: Command) -> list[str]:
    return [place.kind for place in command.places]


def test_every_command_is_there(root: Command) -> None:
    assert [child.path[0] for child in root.children] == list(COMMANDS)
    assert [child.path[-1] for child in at(root, "secrets").children] == ["set", "list", "delete"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_option_is_in_every_script(root: Command, shell: str) -> None:
    shown = script(full_parser(), shell)
    flags = {flag for command in root.walk() for option in command.options for flag in option.flags}
    assert {"--detach", "-f", "--tail", "--json"} <= flags
    marks = [f"-l {flag[2:]}" if shell == "fish" and len(flag) > 2 else flag for flag in flags]
    if shell == "fish":
        marks = [f"-s {mark[1:]}" if len(mark) == 2 else mark for mark in marks]
    assert not [mark for mark in marks if mark not in shown]


def test_values_are_of_the_kind_that_they_are_called(root: Command) -> None:
    run = at(root, "run")
    valued = {flag: option.kind for option in run.options for flag in option.flags}
    assert kinds(run)[:1] == ["folders"]
    assert valued["--file"] == "files"
    assert valued["--profile"] == "profiles"
    assert valued["--backend"] == "backends"
    assert valued["--name"] == "any"
    assert valued["--detach"] == "none"
    for command in ("ps", "logs", "attach", "stop", "restart", "rm"):
        assert kinds(at(root, command)) == ["runs"], command
    assert at(root, "stop").places[0].many
    assert kinds(at(root, "secrets set"))[0] == "secrets"
    assert kinds(at(root, "secrets delete")) == ["secrets"]
    assert kinds(at(root, "validate")) == ["files"]
    assert at(root, "completion").places[0].choices == SHELLS


def test_every_kind_that_is_asked_for_is_answered(
    root: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word for command in root.walk() for word in (*command.options, *command.places)]
    asked = {word.kind for word in words} - {"none", "any", "words", "files", "folders"}
    assert asked == {"runs", "secrets", "profiles", "backends"}
    for kind in asked:
        monkeypatch.setattr(complete_words, f"_{kind}", lambda prefix: [f"{prefix}x", "-y", "a b"])
        complete_words.run(argparse.Namespace(kind=kind, prefix=kind[:2]))
        assert capsys.readouterr().out == f"{kind[:2]}x\n"


def test_an_unknown_kind_completes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert complete_words.run(argparse.Namespace(kind="nonsense", prefix="")) == 0
    assert capsys.readouterr().out == ""
