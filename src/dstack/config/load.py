"""Finding and reading task files."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..errors import FileErrors, UsageError
from .forms import Reader
from .interpolate import Values, quote
from .packed import Memory, parse_once
from .profile import Profiles, load_profiles
from .shapes import Task
from .source import MAX_BYTES
from .task import read_task

__all__ = ["Context", "Profiles", "find_task_file", "load_profiles", "load_task", "read_file"]

DEFAULT_NAMES = (".dstack.yml", ".dstack.yaml")
NAME_RULE = "a task file is called .dstack.yml or NAME.dstack.yml"


class Context(msgspec.Struct, frozen=True):
    """What the command line knows about a task.

    `name` is the one given there, `fallback_name` is taken when the file has none either.
    `secrets` None: whether a secret exists is not checked. `check_args` False: the arguments are
    not known, and a value that depends on them is not judged.
    """

    name: str | None = None
    fallback_name: str = "task"
    args: tuple[str, ...] = ()
    secrets: frozenset[str] | None = None
    check_args: bool = True


def load_task(source: bytes, filename: str, context: Context, memory: Memory | None = None) -> Task:
    """Read a task file. `filename` is how messages call it.

    Raises FileErrors with everything that is wrong in it, and UsageError for arguments that it
    does not use.
    """
    document = parse_once(source, filename, memory)
    for argument in context.args:
        if any("\ud800" <= char <= "\udfff" for char in argument):
            message = f"the argument {argument!a} is not UTF-8 text"
            raise UsageError(message)
    values = Values(context.args if context.check_args else None, None, context.secrets)
    reader = Reader(document, values)
    task = read_task(document.root, reader, context.name, context.fallback_name)
    if reader.problems:
        raise FileErrors(sorted(reader.problems, key=lambda each: (each.line, each.column)))
    if context.args and context.check_args and "run.args" not in values.used:
        given = " ".join(quote(argument) for argument in context.args)
        message = f"{filename} does not use the arguments given: {given}"
        hint = "to pass them on, write ${{ run.args }} in one of its commands"
        raise UsageError(message, hint=hint)
    return task


def read_file(path: Path, shown: str) -> bytes:
    """A file's content, at most one byte more than a file may have. Raises UsageError."""
    try:
        if path.exists() and not path.is_file():
            message = f"{shown} is not a file"
            raise UsageError(message)
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        message = f"there is no file {shown}"
    except (OSError, ValueError) as error:
        message = f"cannot read {shown}: {getattr(error, 'strerror', None) or 'not a path'}"
    raise UsageError(message)


def check_file_name(name: str) -> None:
    """Raise UsageError when a task file cannot be called so."""
    if not name.endswith(DEFAULT_NAMES):
        message = f"{name} cannot be a task file: {NAME_RULE}"
        raise UsageError(message, hint="rename it (.yaml is fine too)")


def find_task_file(directory: Path, given: str | None, cwd: Path) -> Path:
    """The file that `dstack run DIRECTORY [-f GIVEN]` means; GIVEN is relative to `cwd`.

    Raises UsageError when it is not there, is not called as a task file is, or when the folder
    has two default ones.
    """
    if given is not None:
        return _given(given, cwd)
    if not directory.is_dir():
        what = "not a folder" if directory.exists() else "not there"
        hint = f"dstack run FOLDER -f {directory.name}" if directory.is_file() else None
        message = f"{directory} is {what}"
        raise UsageError(message, hint=hint)
    found = [directory / name for name in DEFAULT_NAMES if _there(directory / name)]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"{directory} has both {DEFAULT_NAMES[0]} and {DEFAULT_NAMES[1]}"
        raise UsageError(message, hint="remove one, or name one with -f")
    others = others_in(directory)
    message = f"there is no {DEFAULT_NAMES[0]} in {directory}"
    hint = "dstack init writes a first one"
    if others:
        hint = f"name one of those that are there with -f: {', '.join(others[:10])}"
    raise UsageError(message, hint=hint)


def others_in(directory: Path) -> list[str]:
    """The names of a folder's NAME.dstack.yml files."""
    try:
        return sorted(
            each.name for each in directory.iterdir() if _is_other(each.name) and not each.is_dir()
        )
    except OSError:
        return []


def _is_other(name: str) -> bool:
    return name.endswith(DEFAULT_NAMES) and name not in DEFAULT_NAMES


def _there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _given(given: str, cwd: Path) -> Path:
    path = cwd / given
    if "\0" in given or path.is_dir():
        message = f"{given} is a folder, not a task file" if "\0" not in given else "bad path"
        raise UsageError(message, hint="name the file in it")
    if not path.exists():
        others = others_in(path.parent)
        hint = f"there are: {', '.join(others[:10])}" if others else None
        message = f"there is no file {given}"
        raise UsageError(message, hint=hint)
    check_file_name(path.name)
    return path
