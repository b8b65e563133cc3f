"""`${{ }}`: what it becomes, where a secret may stand, and the place of what is wrong."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.config.interpolate import quote
from dstack.config.load import Context, load_task
from dstack.config.shapes import EnvVar, RegistryAuth, Secret, Task, Text, Variable
from dstack.errors import FileErrors, UsageError
from tests.characters import NO_NUL


def load(text: str, *args: str, secrets: frozenset[str] | None = None) -> Task:
    context = Context(fallback_name="calm-owl", args=args, secrets=secrets)
    return load_task(f"type: task\n{text}".encode(), "f", context)


def problems(text: str, secrets: frozenset[str] | None = None) -> list[tuple[int, int, str]]:
    with pytest.raises(FileErrors) as caught:
        load(text, secrets=secrets)
    return [(each.line, each.column, each.text) for each in caught.value.problems]


def test_arguments_are_quoted_one_by_one() -> None:
    task = load("commands:\n  - python x.py ${{ run.args }}\n", "--name", "a b", "it's", "")
    assert task.commands == ("python x.py --name 'a b' 'it'\"'\"'s' ''",)


def test_no_arguments_leave_nothing_behind() -> None:
    assert load("commands: ['x ${{ run.args }}', '${{run.args}}']\n").commands == ("x ", "")


def test_the_runs_name_stands_in_any_value() -> None:
    task = load("name: train\nenv: {A: 'x-${{ run.name }}'}\ncommands: ['${{run.name}}']\n")
    assert task.env == (EnvVar("A", (Text("x-train"),)),)
    assert task.commands == ("train",)
    assert load("commands: ['${{ run.name }}']\n").commands == ("calm-owl",)


def test_the_command_lines_name_wins() -> None:
    context = Context(name="mine", fallback_name="x")
    source = b"type: task\nname: theirs\ncommands: ['${{ run.name }}']\n"
    task = load_task(source, "f", context)
    assert (task.name, task.commands) == ("mine", ("mine",))


def test_commands_reach_the_shell_as_written() -> None:
    text = "commands:\n  - echo $$ $HOME \"q\" 'r' \\n ${X:-y} {{ a }}\n"
    assert load(text).commands == ("echo $$ $HOME \"q\" 'r' \\n ${X:-y} {{ a }}",)


def test_a_doubled_dollar_is_a_literal_expression() -> None:
    task = load("commands: ['echo $${{ run.args }} $${{']\nenv: ['A=$${{ x }}']\n")
    assert task.commands == ("echo ${{ run.args }} ${{",)
    assert task.env == (EnvVar("A", (Text("${{ x }}"),)),)


def test_inserted_text_is_not_expanded_in_env() -> None:
    task = load("commands: [x]\nenv: ['A=$B ${{ run.args }}']\n", "$HOME")
    assert task.env == (EnvVar("A", (Variable("B"), Text(" '$HOME'"))),)


def test_secrets_stand_in_env_and_registry_auth() -> None:
    text = (
        "image: x\nenv:\n  - A=${{ secrets.T }}\nregistry_auth:\n"
        "  username: me$X\n  password: ${{ secrets.P }}!\n"
    )
    task = load(text, secrets=frozenset({"T", "P"}))
    assert task.env == (EnvVar("A", (Secret("T"),)),)
    assert task.registry_auth == RegistryAuth((Text("me$X"),), (Secret("P"), Text("!")))


@pytest.mark.parametrize("where", ["commands", "setup", "build"])
def test_a_secret_in_commands_is_refused_with_the_way_out(where: str) -> None:
    text = f"{where}:\n  - curl ${{{{ secrets.TOKEN }}}}\n"
    text += "" if where == "commands" else "commands: [x]\n"
    with pytest.raises(FileErrors) as caught:
        load(text)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.where) == (3, 10, where)
    assert "TOKEN" in problem.text
    assert problem.hint
    assert "env: TOKEN=${{ secrets.TOKEN }}" in problem.hint


def test_a_missing_secret_is_named_with_the_command_that_sets_it() -> None:
    with pytest.raises(FileErrors) as caught:
        load("commands: [x]\nenv: ['A=${{ secrets.NOPE }}']\n", secrets=frozenset({"T"}))
    (problem,) = caught.value.problems
    assert problem.text == "there is no secret NOPE"
    assert problem.hint == "set it with: dstack secrets set NOPE"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("${{ foo.bar }}", "`${{ foo.bar }}` does not exist"),
        ("${{ run.nam }}", "`${{ run.nam }}` does not exist"),
        ("${{ env.X }}", "`${{ env.X }}` does not exist"),
        ("${{ }}", "is not of the form"),
        ("${{ run }}", "is not of the form"),
        ("${{ run.args.x }}", "is not of the form"),
        ("${{ run.args || 1 }}", "is not of the form"),
        ("${{ run.args }", "`${{` is not closed"),
    ],
)
def test_what_is_wrong_has_its_exact_place(expression: str, message: str) -> None:
    ((line, column, text),) = problems(f"commands:\n  - écho 'x' {expression}\n")
    assert (line, column) == (3, 14)
    assert message in text


def test_places_in_quoted_block_and_folded_values() -> None:
    text = (
        "commands:\n"
        '  - "a\\tb ${{ x.y }}"\n'
        "  - |  # a comment\n"
        "    one\n"
        "    two ${{ run.args }} ${{ x.y }}\n"
        "  - >-\n"
        "    folded\n"
        "      ${{ x.y }}\n"
        "  - $${{ ok }} ${{ x.y }}\n"
    )
    assert [(line, column) for line, column, _ in problems(text)] == [
        (3, 11), (6, 25), (9, 7), (10, 16),
    ]  # fmt: skip


def test_the_runs_own_name_cannot_use_itself() -> None:
    ((line, column, text),) = problems("name: a-${{ run.name }}\ncommands: [x]\n")
    assert (line, column) == (2, 9)
    assert "own name" in text


def test_arguments_that_the_file_does_not_use_are_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        load("commands: [x]\n", "--epochs", "2 0")
    assert not isinstance(caught.value, FileErrors)
    assert caught.value.message == "f does not use the arguments given: --epochs '2 0'"
    assert "${{ run.args }}" in (caught.value.hint or "")


def test_a_files_errors_come_before_unused_arguments() -> None:
    with pytest.raises(FileErrors):
        load("comands: [x]\n", "--epochs")


def test_an_argument_that_is_no_text_is_an_error() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        load("commands: ['${{ run.args }}']\n", "\udcff")


def test_a_value_that_needs_unknown_arguments_is_not_judged() -> None:
    source = b"type: task\nimage: x:${{ run.args }}\nmax_duration: ${{ run.args }}\n"
    load_task(source, "f", Context(check_args=False))
    with pytest.raises(FileErrors):
        load_task(source, "f", Context())


@given(st.text(NO_NUL))
def test_quoting_survives_a_shell(argument: str) -> None:
    assert shlex.split(quote(argument)) == [argument]
