"""The task file's properties: one definition each gives form, meaning, default and JSON Schema."""

from __future__ import annotations

from typing import Any, get_args

from .forms import (
    ANY_SCALAR,
    INVALID,
    EitherForm,
    Form,
    ListForm,
    PartsForm,
    Property,
    Reader,
    RecordForm,
    ScalarForm,
    Schema,
    UniqueForm,
    Value,
    check_names,
    check_required,
    pattern,
    read_properties,
)
from .interpolate import Expression, Raw, parts_of, split
from .profile import SETTINGS, check_settings, one_of, settings_of
from .quantities import BadValue, shown
from .shapes import EnvVar, Pull, RegistryAuth, Task
from .source import Broken, Mapping, Node, Scalar, Sequence
from .values import (
    PYTHONS,
    parse_absolute,
    parse_cache,
    parse_env_name,
    parse_name,
    parse_port,
    parse_python,
    parse_words,
)

TYPES = ("task",)
_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"


def _type(text: str) -> str:
    if text in TYPES:
        return text
    message = f"there is no type {shown(text)}"
    raise BadValue(message, "these types exist: " + ", ".join(TYPES))


def _filled(text: str) -> str:
    if text.strip():
        return text
    message = "is empty"
    raise BadValue(message)


class CommandForm(ScalarForm):
    """A command as written; one that is empty only because the run has no arguments is fine."""

    def __init__(self) -> None:
        super().__init__("a string", str, dict(ANY_SCALAR))

    def read(self, node: Node, reader: Reader, where: str) -> Value:
        """The value, or INVALID."""
        if isinstance(node, Scalar) and not node.text.strip() and not node.null:
            return reader.problem(node, where, "the command is empty")
        return super().read(node, reader, where)


class PortsForm(ListForm):
    """Ports; neither a run's port nor a local one may stand twice."""

    def __init__(self) -> None:
        text = r"(?:\*:|[0-9]{1,5}:)?[0-9]{1,5}"
        schema: Schema = {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                pattern(text, numbers=False),
            ]
        }
        super().__init__(ScalarForm("a port", parse_port, schema), "a list of ports")

    def check(self, items: list[tuple[Node, Any]], reader: Reader, where: str) -> None:
        """What holds between the values."""
        runs: dict[int, Node] = {}
        locals_: dict[int, Node] = {}
        for node, port in items:
            if port.run in runs:
                text = f"the run's port {port.run} is listed twice; first in line "
                reader.problem(node, where, f"{text}{runs[port.run].line}")
            elif port.local in locals_:
                text = f"the local port {port.local} is listed twice; first in line "
                reader.problem(node, where, f"{text}{locals_[port.local].line}")
            runs.setdefault(port.run, node)
            if port.local is not None:
                locals_.setdefault(port.local, node)


class EnvItemForm(ScalarForm):
    """`NAME=VALUE` or `NAME`."""

    def __init__(self) -> None:
        schema: Schema = {"type": "string", "pattern": f"^{_IDENTIFIER}(?:=[\\s\\S]*)?$"}
        super().__init__("NAME=VALUE or NAME", str, schema)

    def read(self, node: Node, reader: Reader, where: str) -> Value:
        """The value, or INVALID."""
        if isinstance(node, Mapping) and node.entries:
            name = shown(next(iter(node.entries)))[1:-1]
            hint = f"write {name}=VALUE, or make all of env a mapping, without the `- `"
            return reader.problem(node, where, "must be NAME=VALUE or NAME, not a mapping", hint)
        if not isinstance(node, Scalar) or node.null:
            return self._refuse(node, reader, where)
        name, equals, _ = node.text.partition("=")
        pieces = split(name)
        try:
            if any(isinstance(piece, Expression) for piece in pieces):
                message = f"{shown(node.text)}: the name of a variable cannot hold ${{{{ }}}}"
                raise BadValue(message)
            parse_env_name(name)
        except BadValue as error:
            return reader.problem(node, where, str(error), _hint(node.text) or error.hint)
        replaced = reader.pieces(node, where, secrets=True)
        if replaced is None:
            return INVALID
        if not equals:
            return EnvVar(name)
        first = replaced[0]
        if isinstance(first, Raw):  # it is: the name stands in it
            replaced[0] = Raw(first.text[len(name) + 1 :])
        return EnvVar(name, parts_of(replaced, variables=True))


def _hint(text: str) -> str | None:
    name, colon, value = text.partition(":")
    return f"write {name}={shown(value)[1:-1]}" if colon and "=" not in text else None


class EnvMappingForm(Form):
    """`NAME: VALUE`; a null takes the submitting shell's value."""

    value = PartsForm("text", variables=True)

    def read(self, node: Node, reader: Reader, where: str) -> Value:
        """The value, or INVALID."""
        if not isinstance(node, Mapping):
            return super().read(node, reader, where)
        variables: list[EnvVar] = []
        for name, (key, value) in node.entries.items():
            path = f"{where}.{shown(name)[1:-1]}"
            try:
                parse_env_name(name)
            except BadValue as error:
                reader.problem(key, path, str(error), error.hint)
                continue
            if isinstance(value, Scalar) and value.null:
                variables.append(EnvVar(name))
                continue
            parts = self.value.read(value, reader, path)
            if parts is not INVALID:
                variables.append(EnvVar(name, parts))
        return tuple(variables)

    def schema(self) -> Schema:
        """The same as JSON Schema."""
        value = {"type": ["string", "number", "boolean", "null"]}
        return {
            "type": "object",
            "patternProperties": {f"^{_IDENTIFIER}$": value},
            "additionalProperties": False,
        }


COMMANDS = ListForm(CommandForm(), "a list of strings")
_ENV = "a list of NAME=VALUE, or a mapping"
_SECRET_TEXT = PartsForm("text", variables=False)
_PATH = ScalarForm(
    "a folder", parse_cache, {"type": "string", "minLength": 1, "not": {"const": "/"}}
)
_PYTHON_SCHEMA: Schema = {
    # Unquoted, 3.10 is the number 3.1 to JSON; dstack itself keeps the text.
    "enum": [*PYTHONS, *sorted({float(version) for version in PYTHONS})]
}

REGISTRY_AUTH: dict[str, Property] = {
    "username": Property(_SECRET_TEXT, "Who pulls.", example="username: me", required=True),
    "password": Property(
        _SECRET_TEXT,
        "The password or token.",
        example="password: ${{ secrets.TOKEN }}",
        required=True,
    ),
}

TASK: dict[str, Property] = {
    "type": Property(
        ScalarForm("a type: " + ", ".join(TYPES), _type, {"enum": list(TYPES)}),
        "What the file describes: `task`.",
        example="type: task",
        required=True,
    ),
    "name": Property(
        ScalarForm("a name", parse_name, pattern("[a-z][a-z0-9-]{0,40}", numbers=False)),
        "The run's name.",
        default="two random words",
        example="name: train",
    ),
    "commands": Property(
        COMMANDS,
        "What runs, in order, in one shell; the first that fails ends the run with its exit code.",
        default="the image's own entrypoint and command; required without `image`",
        example="commands: [python train.py]",
    ),
    "env": Property(
        EitherForm(
            _ENV,
            sequence=ListForm(EnvItemForm(), _ENV),
            mapping=EnvMappingForm(_ENV),
        ),
        "Environment variables: `NAME=VALUE`, or `NAME` for the submitting shell's value.",
        default="none",
        example="env: [EPOCHS=20, HF_TOKEN]",
    ),
    "ports": Property(
        PortsForm(),
        "The run's ports that are reachable at 127.0.0.1: `8000`, `3333:8000` or `*:8000`.",
        default="none",
        example='ports: [8000, "*:6006"]',
    ),
    "python": Property(
        ScalarForm(f"a version, {PYTHONS[0]} to {PYTHONS[-1]}", parse_python, _PYTHON_SCHEMA),
        "The Python that is `python` in the run, with `pip`. Not together with `image`.",
        default="the version that runs dstack",
        example='python: "3.11"',
    ),
    "setup": Property(
        COMMANDS,
        "Run once per environment, before `commands`, in a shell of its own.",
        default="nothing",
        example="setup: [pip install -r requirements.txt]",
    ),
    "image": Property(
        ScalarForm("an image", _filled, {"type": "string", "pattern": "\\S"}),
        "The container image to run in. Not together with `python`.",
        default="none: the run is a process on the machine",
        example="image: python:3.11-slim",
    ),
    "pull": Property(
        one_of(get_args(Pull)),
        "When the image is pulled: when it is `missing`, or `always`, should its tag have moved.",
        default="`missing`",
        example="pull: always",
    ),
    "entrypoint": Property(
        EitherForm(
            "a string or a list of strings",
            scalar=ScalarForm("a string", parse_words, {"type": "string", "pattern": "\\S"}),
            sequence=ListForm(
                ScalarForm("a string", _filled, dict(ANY_SCALAR)), "a list of strings", least=1
            ),
        ),
        "What interprets the commands; split as a shell would, the script is its last argument.",
        default="`bash` if the image has it, else `sh`",
        example="entrypoint: /bin/bash -i -c",
    ),
    "registry_auth": Property(
        RecordForm(
            "username and password",
            REGISTRY_AUTH,
            lambda read: RegistryAuth(read.get("username", ()), read.get("password", ())),
        ),
        "How to pull a private image.",
        default="none",
        example="registry_auth: {username: me, password: '${{ secrets.TOKEN }}'}",
    ),
    "home_dir": Property(
        ScalarForm("an absolute path", parse_absolute, pattern("/[\\s\\S]*", numbers=False)),
        "The home folder in the container; `~` in `cache` means it.",
        default="that of the image's user: `/root` for root",
        example="home_dir: /home/me",
    ),
    "cache": Property(
        UniqueForm(_PATH, "a list of folders"),
        "Folders that are kept between runs: absolute, relative to the run's folder, or `~/...`.",
        default="none",
        example="cache: [~/.cache/pip, checkpoints]",
    ),
    "build": Property(
        COMMANDS,
        "The build stage, whose result later runs start from.",
        default="none",
        example="build: [pip install -r requirements.txt]",
    ),
    **SETTINGS,
}


def read_task(root: Node, reader: Reader, name: str | None, fallback: str) -> Task:
    """The task that a tree describes; what is wrong is in the reader's problems.

    `name` is the command line's; without it the file's counts, then `fallback`.
    """
    if not isinstance(root, Mapping):
        what = "a list" if isinstance(root, Sequence) else "text"
        if not isinstance(root, Broken):
            hint = "start with `type: task`"
            reader.problem(root, "", f"a task file is a mapping of properties, not {what}", hint)
        return Task()
    # The name first: every other value may hold ${{ run.name }}.
    read = read_properties(root, {"name": TASK["name"]}, reader, "")
    read["name"] = name or read.get("name", fallback)
    if reader.values is not None:
        reader.values.name = read["name"]
    rest = {each: TASK[each] for each in TASK if each != "name"}
    read |= read_properties(root, rest, reader, "")
    meant = check_names(root, TASK, reader, "")
    check_required(root, TASK, reader, "", meant)
    check_settings(root, reader, "")
    _check_together(root, reader, meant)
    return _build(read)


def _check_together(root: Mapping, reader: Reader, meant: set[str]) -> None:
    entries = root.entries
    if "image" in entries and "python" in entries:
        later = max("image", "python", key=lambda each: entries[each][0].line)
        other = "image" if later == "python" else "python"
        text = f"cannot be used together with {other}"
        reader.problem(entries[later][0], later, text, "the image brings its own Python")
    if "image" in entries or meant & {"image", "commands"}:
        return
    commands = root.get("commands")
    if commands is None:
        hint = "add `commands`, or an `image` whose own command runs"
        reader.problem(root, "commands", "is required without image", hint)
    elif isinstance(commands, Sequence) and not commands.items:
        reader.problem(commands, "commands", "the list is empty; without image it is required")


def _build(read: dict[str, Any]) -> Task:
    kept = {each: read[each] for each in Task.__struct_fields__ if each in read}
    return Task(**kept, settings=settings_of(read))
