"""Every property of a task file: right forms, wrong types, null, out of range."""

from __future__ import annotations

from typing import Any

import pytest

from dstack.config.load import Context, load_task
from dstack.config.shapes import (
    EnvVar,
    Gpu,
    Port,
    Range,
    Resources,
    Retry,
    RetryEvent,
    Task,
    Text,
    Variable,
)
from dstack.config.task import TASK
from dstack.errors import FileErrors, Problem

GB = 1024**3
ALL: tuple[RetryEvent, ...] = ("no-capacity", "interruption", "error")


def load(text: str) -> Task:
    return load_task(text.encode(), "f", Context(fallback_name="calm-owl"))


def problems(text: str) -> list[Problem]:
    try:
        load(text)
    except FileErrors as errors:
        return errors.problems
    return []


def shown(text: str) -> list[str]:
    return [f"{each.line}:{each.column} {each.where}: {each.text}" for each in problems(text)]


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("commands: [a, true, 3.10, no]", "commands", ("a", "true", "3.10", "no")),
        ("commands: [x]\nsetup: []", "setup", ()),
        ("commands: [x]\nbuild: [b]", "build", ("b",)),
        ("commands:\n  - |\n    a\n    b\n", "commands", ("a\nb\n",)),
        ("commands: [x]\npython: 3.10", "python", "3.10"),
        ("commands: [x]\npython: '3.7'", "python", "3.7"),
        ("commands: [x]\nports: [22:22, 8000, '*:8001']", "ports",
         (Port(22, 22), Port(8000, 8000), Port(8001, None))),
        ("commands: [x]\nenv: [A=1, B, 'C=$A:x', D=]", "env",
         (EnvVar("A", (Text("1"),)), EnvVar("B"), EnvVar("C", (Variable("A"), Text(":x"))),
          EnvVar("D", ()))),
        ("commands: [x]\nenv: {A: true, B: null, C: , D: 'null', E: ''}", "env",
         (EnvVar("A", (Text("true"),)), EnvVar("B"), EnvVar("C"), EnvVar("D", (Text("null"),)),
          EnvVar("E", ()))),
        ("commands: [x]\nenv: ['P=/a:$P', 'P=/b:$P']", "env",
         (EnvVar("P", (Text("/a:"), Variable("P"))), EnvVar("P", (Text("/b:"), Variable("P"))))),
        ("commands: [x]\ncache: [a/, ~/b, /c]", "cache", ("a", "~/b", "/c")),
        ("image: ubuntu:22.04", "image", "ubuntu:22.04"),
        ("image: x\nentrypoint: /bin/bash -i -c", "entrypoint", ("/bin/bash", "-i", "-c")),
        ("image: x\nentrypoint: [sh, '-c x']", "entrypoint", ("sh", "-c x")),
        ("image: x\nhome_dir: /home/me/", "home_dir", "/home/me"),
        ("commands: [x]\nname: train-1", "name", "train-1"),
        ("commands: [x]", "name", "calm-owl"),
        ("commands: &c [x]\nsetup: *c", "setup", ("x",)),
    ],
)  # fmt: skip
def test_right_forms(text: str, field: str, value: object) -> None:
    assert getattr(load(f"type: task\n{text}\n"), field) == value


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("resources: {cpu: 2.., memory: 24GB, gpu: A100:2, shm_size: 1GB, disk: 100GB..}",
         "resources",
         Resources(Range(2, None), Range(24 * GB, 24 * GB), Gpu(Range(2, 2), "A100"), GB,
                   Range(100 * GB, None))),
        ("resources: {gpu: {name: H100, count: 1..2, memory: 80GB}}", "resources",
         Resources(gpu=Gpu(Range(1, 2), "H100", Range(80 * GB, 80 * GB)))),
        ("resources: {gpu: {count: 2}}", "resources", Resources(gpu=Gpu(Range(2, 2)))),
        ("resources: {}", "resources", Resources()),
        ("max_duration: off", "max_duration", 0),
        ("max_duration: 90", "max_duration", 90),
        ("max_duration: 1w", "max_duration", 604800),
        ("retry: true", "retry", Retry(ALL, 3600)),
        ("retry: false", "retry", Retry((), 0)),
        ("retry: {on_events: [error], duration: 3h}", "retry", Retry(("error",), 10800)),
        ("retry: {duration: 1d}", "retry", Retry(ALL, 86400)),
        ("retry_policy: {retry: true, limit: 1h}", "retry",
         Retry(("no-capacity", "interruption"), 3600)),
        ("retry_policy: {retry: false}", "retry", Retry((), 0)),
        ("spot_policy: spot", "spot_policy", "spot"),
        ("max_price: 0.5", "max_price", 0.5),
        ("backends: [local, gpu-box]", "backends", ("local", "gpu-box")),
    ],
)  # fmt: skip
def test_right_settings(text: str, field: str, value: object) -> None:
    task = load(f"type: task\ncommands: [x]\n{text}\n")
    assert getattr(task.settings, field) == value


WRONG: dict[str, list[str]] = {
    "type": ["[task]", "{a: b}", "dev", "null", "Task"],
    "name": ["[a]", "{a: b}", "A", "null", "'1a'", "''"],
    "commands": ["python x.py", "{a: b}", "[]", "null", "[[a]]", "[{a: b}]", "[null]", "['']"],
    "env": ["A=1", "[1A=x]", "{1A: x}", "null", "[{A: b}]", "{A: [b]}", "[null]", "[A-B]", "3"],
    "ports": ["8000", "{80: 80}", "[0]", "[65536]", "[a]", "null", "[80, 80]", "[[80]]", "[null]"],
    "python": ["[3.11]", "{a: b}", "3.6", "3.15", "3.1", "null", "''", "true"],
    "setup": ["pip install x", "{a: b}", "null", "[null]", "[[a]]"],
    "image": ["[x]", "{a: b}", "null", "''"],
    "pull": ["[always]", "{a: b}", "null", "never", "''"],
    "entrypoint": ["[]", "{a: b}", "null", "\"'x\"", "''", "[null]"],
    "registry_auth": ["me", "[me]", "{username: me}", "{username: me, password: }", "null",
                      "{username: [me], password: x}", "{user: me, password: x}"],
    "home_dir": ["[x]", "{a: b}", "null", "home", "~", "''"],
    "cache": ["/data", "{a: b}", "null", "[/]", "['']", "[../x]", "[null]", "[~]", "[a, a/]"],
    "build": ["make", "{a: b}", "null", "[null]"],
    "backends": ["local", "{a: b}", "null", "[]", "[a, a]", "['a b']"],
    "resources": ["4", "[4]", "null", "{cpus: 4}", "{cpu: 0}", "{memory: x}", "{gpu: [1]}",
                  "{gpu: {nam: A}}", "{shm_size: 1GB..}", "{disk: -1}", "{cpu: }", "{cpu: [1]}"],
    "spot_policy": ["[spot]", "{a: b}", "null", "maybe"],
    "max_price": ["[1]", "{a: b}", "null", "0", "-1", "free"],
    "retry": ["[error]", "null", "yes", "{on_events: error}", "{on_events: []}", "3h",
              "{on_events: [oom]}", "{duration: off}", "{on_events: [error, error]}"],
    "retry_policy": ["true", "[a]", "null", "{limit: x}", "{retry: 1}", "{duration: 3h}"],
    "max_duration": ["[3h]", "{a: b}", "null", "0", "3x", "-1", "true", "999999w"],
}  # fmt: skip


def test_every_property_has_its_wrong_forms() -> None:
    assert WRONG.keys() == TASK.keys()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_wrong_forms_are_one_sentence_at_their_place(name: str, value: str) -> None:
    base = {"type": "task", "commands": "[x]"} | {name: value}
    text = "".join(f"{key}: {each}\n" for key, each in base.items())
    (problem,) = problems(text)
    line = list(base).index(name) + 1
    assert problem.line == line
    assert (problem.where or "").split(".")[0] == name
    assert problem.column > len(name) or problem.text.startswith("has no value")
    assert "\n" not in str(problem).replace("\n  hint: ", "")


@pytest.mark.parametrize("name", [name for name in TASK if name not in ("type", "commands")])
def test_a_property_without_a_value_is_an_error(name: str) -> None:
    (problem,) = problems(f"type: task\ncommands: [x]\n{name}:\n")
    assert (problem.line, problem.column, problem.where) == (3, 1, name)
    assert problem.text.startswith("has no value")
    assert problem.hint == "give it one, or remove the line"


@pytest.mark.parametrize("name", TASK)
def test_every_propertys_example_is_right(name: str) -> None:
    base = {"type": "type: task", "commands": "commands: [x]"} | {name: TASK[name].example}
    assert shown("\n".join(base.values())) == []


def test_everything_that_is_wrong_is_reported_in_the_order_written() -> None:
    text = "type: dev\ncomands: [x]\nports: [0, a]\npython: 3.6\nmax_duration: x\n"
    assert [(each.line, each.where) for each in problems(text)] == [
        (1, "type"), (2, "comands"), (3, "ports"), (3, "ports"), (4, "python"),
        (5, "max_duration"),
    ]  # fmt: skip


def test_another_type_gets_the_list_of_those_that_exist() -> None:
    (problem,) = problems("type: service\ncommands: [x]\n")
    assert problem.text == 'there is no type "service"'
    assert problem.hint == "these types exist: task"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("command", "commands"), ("comands", "commands"), ("Python", "python"), ("port", "ports"),
     ("environment", "env"), ("max-duration", "max_duration"), ("resource", "resources")],
)  # fmt: skip
def test_a_misspelt_property_is_guessed(written: str, meant: str) -> None:
    (problem,) = problems(f"type: task\ncommands: [x]\n{written}: x\n")
    assert (problem.where, problem.hint) == (written, f'did you mean "{meant}"?')


def test_what_cannot_be_guessed_gets_the_list() -> None:
    (problem,) = problems("type: task\ncommands: [x]\nzzz: x\n")
    assert problem.hint
    assert problem.hint.startswith("there are: type, name, commands")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1 None: the file is empty"]),
        ("- a\n- b\n", ["1:1 None: a task file is a mapping of properties, not a list"]),
        ("hello", ["1:1 None: a task file is a mapping of properties, not text"]),
        ("commands: [x]", ["1:1 type: is required"]),
        ("type: task", ["1:1 commands: is required without image"]),
        ("type: task\ncommands: []",
         ["2:11 commands: the list is empty; without image it is required"]),
        ("type: task\nimage: x\npython: 3.11\n",
         ["3:1 python: cannot be used together with image"]),
        ("type: task\npython: 3.11\nimage: x\n",
         ["3:1 image: cannot be used together with python"]),
        ("type: task\ncommands: [x]\nretry: true\nretry_policy: {retry: true}",
         ["4:1 retry_policy: says the same as retry: keep one of them"]),
        ("type: task\ncommands: [x]\nports: [8000, 3333:8000]",
         ["3:15 ports: the run's port 8000 is listed twice; first in line 3"]),
        ("type: task\ncommands: [x]\nports:\n  - 8000\n  - 8000:9000",
         ["5:5 ports: the local port 8000 is listed twice; first in line 4"]),
        ("type: task\ncommands: [x]\ncommands: [y]\n",
         ['3:1 None: "commands" stands here twice; first in line 2']),
        ("type: task\ncommands: [x]\nenv:\n  A: 1\n  A: 2\n",
         ['5:3 None: "A" stands here twice; first in line 4']),
    ],
)  # fmt: skip
def test_what_holds_between_properties(text: str, expected: list[str]) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("commands: python x.py",
         'write it as a list: ["python x.py"], or on lines of its own, each after `- `'),
        ("commands:\n  - echo a: b", "quote it if it is text that holds `: `"),
        ("commands: [x]\nenv:\n  - A: b",
         "write A=VALUE, or make all of env a mapping, without the `- `"),
        ("commands: [x]\nenv: ['A:b']", "write A=b"),
        ("commands: [x]\ncache: [~]", 'an unquoted ~ means nothing in YAML: quote it, "~"'),
        ("commands: ['${{ env.X }}']", "in commands, write $X"),
        ("commands: ['${{ run.arg }}']", 'did you mean "run.args"?'),
    ],
)  # fmt: skip
def test_hints(text: str, hint: str) -> None:
    (problem,) = problems(f"type: task\n{text}\n")
    assert problem.hint == hint


def test_with_an_image_the_commands_may_be_left_out() -> None:
    assert load("type: task\nimage: x\ncommands: []\n").commands == ()
    assert load("type: task\nimage: x\n").commands == ()


def test_merge_keys_work_in_a_task() -> None:
    task = load(
        "type: task\ncommands: [x]\nresources: &r {cpu: 2}\nretry: false\nenv: {<<: {A: 1}}"
    )
    assert task.env == (EnvVar("A", (Text("1"),)),)


def deep(levels: int) -> Any:
    return "[" * levels + "]" * levels


def test_deep_and_repeated_values_end_in_one_error() -> None:
    assert len(problems(f"type: task\ncommands: {deep(40)}\n")) == 1
    assert len(problems(f"type: task\ncommands: {deep(400)}\n")) == 1
    bomb = "type: task\ncommands: [x]\na: &a [x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"b{n}: &b{n} [{','.join(['*a'] * 9)}]\n" for n in range(9))
    assert len(problems(bomb)) == 10
