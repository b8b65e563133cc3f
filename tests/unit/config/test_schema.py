"""The JSON Schema accepts what dstack accepts, and refuses what it refuses."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from dstack.config.load import Context, load_task
from dstack.config.profile import PROFILE, load_profiles
from dstack.config.schema import profiles_schema, task_schema
from dstack.config.task import TASK
from dstack.errors import FileErrors

TASKS = jsonschema.Draft202012Validator(task_schema())
PROFILES = jsonschema.Draft202012Validator(profiles_schema())

RIGHT = [
    "type: task\ncommands: [x, true, 3]\n",
    "type: task\nimage: x\n",
    "type: task\ncommands: [x]\nports: [8000, '3333:8001', '*:80']\npython: 3.10\n",
    "type: task\ncommands: [x]\npython: '3.14'\nenv: {A: 1, B: , C: true, D: x}\n",
    "type: task\ncommands: [x]\nenv: [A=1, B, 'C=${{ secrets.X }}']\n",
    "type: task\ncommands: [x]\nresources: {cpu: 0.5, memory: 24GB.., gpu: 'A100:2', disk: 5}\n",
    "type: task\ncommands: [x]\nresources: {cpu: 2.., gpu: {name: A100, count: 2}}\n",
    "type: task\ncommands: [x]\nretry: true\nmax_duration: off\n",
    "type: task\ncommands: [x]\nretry: {on_events: [error], duration: 3h}\nmax_duration: 90\n",
    "type: task\ncommands: ['${{ run.args }}']\nname: '${{ run.args }}'\n",
    "type: task\nimage: x\nregistry_auth: {username: a, password: b}\nentrypoint: [sh, -c]\n",
]
WRONG = [
    "commands: [x]\n",
    "type: dev\ncommands: [x]\n",
    "type: task\n",
    "type: task\ncommands: []\n",
    "type: task\ncommands: x\n",
    "type: task\ncommands: [[x]]\n",
    "type: task\ncommands: [null]\n",
    "type: task\ncommands: [x]\nzzz: 1\n",
    "type: task\ncommands: [x]\nports: [0]\n",
    "type: task\ncommands: [x]\nports: [70000]\n",
    "type: task\ncommands: [x]\nports: [a]\n",
    "type: task\ncommands: [x]\npython: 3.6\n",
    "type: task\nimage: x\npython: '3.11'\n",
    "type: task\ncommands: [x]\nenv: [1A=b]\n",
    "type: task\ncommands: [x]\nenv: {1A: b}\n",
    "type: task\ncommands: [x]\nname: A\n",
    "type: task\ncommands: [x]\nmax_duration: 3x\n",
    "type: task\ncommands: [x]\nresources: {cpus: 2}\n",
    "type: task\ncommands: [x]\nresources: {memory: lots}\n",
    "type: task\ncommands: [x]\nretry: {on_events: [oom]}\n",
    "type: task\ncommands: [x]\nretry: maybe\n",
    "type: task\ncommands: [x]\nspot_policy: yes\n",
    "type: task\ncommands: [x]\nhome_dir: home\n",
    "type: task\nimage: x\nregistry_auth: {username: a}\n",
    "type: task\ncommands: [x]\ncache: [/]\n",
    "type: task\ncommands: [x]\nretry: true\nretry_policy: {retry: true}\n",
]


@pytest.mark.parametrize("schema", [task_schema(), profiles_schema()])
def test_it_is_a_schema(schema: dict[str, object]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("text", RIGHT)
def test_right_files_are_right_to_both(text: str) -> None:
    load_task(text.encode(), "f", Context(check_args=False))
    assert [error.message for error in TASKS.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize("text", WRONG)
def test_wrong_files_are_wrong_to_both(text: str) -> None:
    with pytest.raises(FileErrors):
        load_task(text.encode(), "f", Context(check_args=False))
    assert not TASKS.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize("name", TASK)
def test_the_examples_of_the_task_file(name: str) -> None:
    base = {"type": "type: task", "commands": "commands: [x]"} | {name: TASK[name].example}
    if name == "image":
        del base["commands"]
    assert TASKS.is_valid(yaml.safe_load("\n".join(base.values())))


@pytest.mark.parametrize("name", PROFILE)
def test_the_examples_of_profiles(name: str) -> None:
    base = {"name": "name: a"} | {name: PROFILE[name].example}
    text = "profiles:\n- " + "\n  ".join(base.values())
    load_profiles(text.encode(), "p")
    assert PROFILES.is_valid(yaml.safe_load(text))


def test_every_property_says_what_it_is() -> None:
    for name, schema in task_schema()["properties"].items():
        assert len(schema["description"]) > 10, name
