"""Changing the `config.yml` that somebody wrote: comments and order stay as they are. Pure.

Lines are put in or taken out of the text; then it is read again, and unless it says exactly what it
should, nothing is changed and the user is told what to write.
"""

from __future__ import annotations

import re

import msgspec

from ..errors import FileErrors, UsageError
from .backends import Backend, load_backends
from .source import Mapping, Node, Scalar, Sequence, parse

# What YAML takes for text as it stands. Anything else is quoted.
_PLAIN = re.compile(r"(?:~/|[A-Za-z0-9/])[\w.@/+-]*(?::[\w.@/+-]+)*")
_NULL = ("null", "Null", "NULL")


def add_backend(text: str | None, backend: Backend, filename: str) -> str:
    """The file with one backend more, at its end; None: there is no file yet.

    A new file names this machine, too. Raises UsageError, FileErrors.
    """
    if text is None:
        text = "backends:\n  - name: local\n"
    before = load_backends(text.encode(), filename)
    if any(each.name == backend.name for each in before):
        message = f"there is a backend {backend.name} already"
        raise UsageError(message, hint=f"`dstack backend remove {backend.name}`, or another name")
    if backend.default:
        text = _without_default(text, filename)
        before = tuple(msgspec.structs.replace(each, default=False) for each in before)
    items = _items(text, filename)
    lines = text.splitlines()
    margin = " " * 2
    at = len(lines)
    if items:
        margin = _margin(lines, items[-1]) or ""
        at = max(_last_line(item) for item in items)
    new = [margin + line for line in as_lines(backend)]
    lines[at:at] = new
    return _checked(lines, (*before, backend), new, filename)


def remove_backend(text: str | None, name: str, filename: str) -> str:
    """The file without a backend. Raises UsageError, FileErrors."""
    before = load_backends(text.encode() if text is not None else None, filename)
    left = tuple(each for each in before if each.name != name)
    if left == before:
        names = ", ".join(each.name for each in before)
        raise UsageError(f"there is no backend {name}", hint=f"backends: {names}")
    if text is None or not left:
        message = f"{name} is the only backend"
        raise UsageError(message, hint=f"add another one first, or delete {filename}")
    lines = text.splitlines()
    items = _items(text, filename)
    item = items[[each.name for each in before].index(name)] if items else None
    if item is not None and _margin(lines, item) is not None:
        del lines[item.line - 1 : _last_line(item)]
    return _checked(lines, left, [], filename)


def as_lines(backend: Backend) -> list[str]:
    """A backend as it stands in the file: what is not said is the default."""
    standard = Backend()
    said = [f"- name: {_scalar(backend.name)}"]
    for field in Backend.__struct_fields__[1:]:
        value = getattr(backend, field)
        if value != getattr(standard, field):
            said.append(f"  {field}: {_scalar('true' if value is True else str(value))}")
    return said


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and text not in _NULL:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _items(text: str, filename: str) -> list[Mapping]:
    root = parse(text.encode(), filename).root
    found = root.get("backends") if isinstance(root, Mapping) else None
    return [i for i in found.items if isinstance(i, Mapping)] if isinstance(found, Sequence) else []


def _margin(lines: list[str], item: Mapping) -> str | None:
    """The blanks before the hyphen of an item that has lines of its own; None: it has none."""
    found = re.match(r"( *)- +", lines[item.line - 1])
    if found is None or found.end() != item.column - 1:
        return None
    return found.group(1)


def _last_line(node: Node) -> int:
    """The last line that something of it stands in."""
    last = node.line
    children: list[Node] = []
    if isinstance(node, Mapping):
        children = [each for entry in node.entries.values() for each in entry]
    elif isinstance(node, Sequence):
        children = node.items
    return max([last, *map(_last_line, children)])


def _without_default(text: str, filename: str) -> str:
    """The file in which no backend is the default; what cannot be taken out stays."""
    lines = text.splitlines()
    for item in reversed(_items(text, filename)):
        entry = item.entries.get("default")
        if entry is None or not isinstance(entry[1], Scalar):
            continue
        key = entry[0]
        alone = re.match(r" *", lines[key.line - 1])
        if alone is not None and alone.end() == key.column - 1 and key.line != item.line:
            del lines[key.line - 1]
    return "\n".join(lines) + "\n"


def _checked(lines: list[str], wanted: tuple[Backend, ...], new: list[str], filename: str) -> str:
    """The text, if it says what is wanted. Raises UsageError."""
    text = "\n".join(lines) + "\n"
    try:
        if load_backends(text.encode(), filename) == wanted:
            return text
    except FileErrors:
        pass
    message = f"{filename} is written in a way that dstack cannot change for you"
    if new:
        raise UsageError(f"{message}; add these lines to `backends`:\n" + "\n".join(new))
    raise UsageError(message, hint="take the lines out with an editor")
