"""YAML text -> a tree that knows the line and column of every value.

Scalars keep the text that was written: `3.10` is "3.10" and `true` is "true". The tree is built
from the parser's events one after the other, so that depth cannot exhaust the stack; an alias
shares what it names, and how much aliases may stand for is limited.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from ..errors import FileErrors, Problem

Event: TypeAlias = Any  # yaml.Event; yaml itself is imported when there is a file to read

MAX_BYTES = 1_048_576
MAX_DEPTH = 50
# How many values aliases and `<<` may copy in one file, so that a small file cannot cost minutes.
MAX_COPIED = 50_000


class Node:
    """A value; `line` and `column` count from 1."""

    __slots__ = ("column", "line")

    def __init__(self, line: int, column: int) -> None:
        self.line = line
        self.column = column


class Scalar(Node):
    """Text as it was written.

    `plain` is whether it stands without quotes; `start` and `end` are where it stands in the
    file's text, `origin` is the line of `start` (another than `line` when reached by an alias).
    """

    __slots__ = ("end", "origin", "plain", "start", "text")

    def __init__(
        self, line: int, column: int, text: str, plain: bool, start: int, end: int, origin: int
    ) -> None:
        super().__init__(line, column)
        self.text = text
        self.plain = plain
        self.start = start
        self.end = end
        self.origin = origin

    @property
    def null(self) -> bool:
        """Whether YAML calls it null: nothing, `~` or `null`, without quotes."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


class Sequence(Node):
    """A list."""

    __slots__ = ("items",)

    def __init__(self, line: int, column: int, items: list[Node]) -> None:
        super().__init__(line, column)
        self.items = items


class Mapping(Node):
    """Keys and values in the order written, each key once."""

    __slots__ = ("entries",)

    def __init__(self, line: int, column: int, entries: dict[str, tuple[Scalar, Node]]) -> None:
        super().__init__(line, column)
        self.entries = entries

    def get(self, key: str) -> Node | None:
        """The value of a key, None when it is not there."""
        entry = self.entries.get(key)
        return entry[1] if entry else None


class Broken(Node):
    """A value that was already complained about."""

    __slots__ = ()


class Document:
    """A file that could be read: its tree, and what is wrong with it so far."""

    __slots__ = ("filename", "problems", "root", "text")

    def __init__(self, filename: str, text: str, root: Node, problems: list[Problem]) -> None:
        self.filename = filename
        self.text = text
        self.root = root
        self.problems = problems


def parse(source: bytes, filename: str) -> Document:
    """Read one file. Raises FileErrors when it is not YAML, or not text, or too large."""
    text = decode(source, filename)
    import yaml

    # The pure parser is forty times slower, but there where PyYAML was built without libyaml.
    loader_class: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    builder = _Builder(filename, text)
    try:
        loader = loader_class(text)
        try:
            while loader.check_event():
                builder.take(loader.get_event())
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        from .broken import explain

        builder.problems.append(explain(error, filename, text))
        raise FileErrors(builder.problems) from None
    if builder.root is None or (isinstance(builder.root, Scalar) and builder.root.null):
        raise FileErrors([Problem(filename, 1, 1, None, "the file is empty", None)])
    return Document(filename, text, builder.root, builder.problems)


def place(text: str, index: int) -> tuple[int, int]:
    """Line and column (from 1) of an offset in a text."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def decode(source: bytes, filename: str) -> str:
    """The file's text. Raises FileErrors when it is none, or too large."""
    if len(source) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES // 1024} KiB"
        raise FileErrors([Problem(filename, 1, 1, None, message)])
    try:
        text = source.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = source[: error.start].decode("utf-8")
        line, column = place(before, len(before))
        message = "the file is not UTF-8 text"
        raise FileErrors([Problem(filename, line, column, None, message)]) from None
    if "\0" in text:
        line, column = place(text, text.index("\0"))
        message = "the file is not text: it holds a NUL byte"
        raise FileErrors([Problem(filename, line, column, None, message)])
    return text


class _Open:
    """A list or mapping that is being read."""

    __slots__ = ("anchor", "before", "key", "merges", "node")

    def __init__(self, node: Sequence | Mapping, anchor: str | None, before: int) -> None:
        self.node = node
        self.before = before  # how many values there were before it
        self.anchor = anchor
        self.key: Scalar | Broken | None = None
        self.merges: list[tuple[Scalar, Node]] = []


class _Builder:
    """Takes events, builds the tree."""

    def __init__(self, filename: str, text: str) -> None:
        self.filename = filename
        self.text = text
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}  # None: its end is not reached yet
        self._documents = 0
        self._sizes: dict[str, int] = {}  # how many values an anchor names
        self._values = 0
        self._copied = 0

    def take(self, event: Event) -> None:
        kind = type(event).__name__
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        if kind == "ScalarEvent":
            self._tag(event, line, column)
            plain = event.style in (None, "") and event.tag is None
            start, end = mark.index, event.end_mark.index
            node = Scalar(line, column, event.value, plain, start, end, line)
            if any(ch == "\0" or "\ud800" <= ch <= "\udfff" for ch in _odd(event.value)):
                self._problem(line, column, "a value cannot hold a NUL or half a character")
                self._add(Broken(line, column), event.anchor)
            else:
                self._add(node, event.anchor)
        elif kind == "AliasEvent":
            self._add(self._alias(event.anchor, line, column), None)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._tag(event, line, column)
            self._open(kind == "MappingStartEvent", event.anchor, line, column)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._close()
        elif kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                self._problem(line, column, "a second document starts here; a file holds one")
                raise FileErrors(self.problems)

    def _problem(self, line: int, column: int, text: str, hint: str | None = None) -> None:
        self.problems.append(Problem(self.filename, line, column, None, text, hint))

    def _tag(self, event: Event, line: int, column: int) -> None:
        tag = event.tag
        core = ("str", "int", "float", "bool", "null", "seq", "map")
        if tag not in (None, "!") and tag.removeprefix("tag:yaml.org,2002:") not in core:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            self._problem(line, column, f"a tag (`{shown}`) means nothing here")

    def _alias(self, name: str, line: int, column: int) -> Node:
        node = self._anchors.get(name)
        if node is None:
            if name in self._anchors:
                self._problem(line, column, f"`*{name}` stands inside what it names")
            else:
                hint = f'to write the text itself, quote it: "*{name}"'
                self._problem(line, column, f"`*{name}` names nothing before it", hint)
            return Broken(line, column)
        self._copy(self._sizes[name], line, column)
        # What it names is shared; only the position is the alias's own.
        if isinstance(node, Scalar):
            return Scalar(line, column, node.text, node.plain, node.start, node.end, node.origin)
        if isinstance(node, Sequence):
            return Sequence(line, column, node.items)
        if isinstance(node, Mapping):
            return Mapping(line, column, node.entries)
        return Broken(line, column)

    def _open(self, mapping: bool, anchor: str | None, line: int, column: int) -> None:
        if len(self._stack) >= MAX_DEPTH:
            message = f"values are nested more than {MAX_DEPTH} deep"
            self._problem(line, column, message)
            raise FileErrors(self.problems)
        if anchor is not None:
            self._anchors[anchor] = None
        node = Mapping(line, column, {}) if mapping else Sequence(line, column, [])
        self._stack.append(_Open(node, anchor, self._values))

    def _close(self) -> None:
        opened = self._stack.pop()
        if isinstance(opened.node, Mapping):
            for key, value in opened.merges:
                self._merge(opened.node, key, value)
        self._add(opened.node, opened.anchor, opened.before)

    def _copy(self, count: int, line: int, column: int) -> None:
        self._values += count
        self._copied += count
        if self._copied > MAX_COPIED:
            message = f"aliases and `<<` copy more than {MAX_COPIED} values"
            self._problem(line, column, message)
            raise FileErrors(self.problems)

    def _add(self, node: Node, anchor: str | None, before: int | None = None) -> None:
        self._values += 1
        if anchor is not None:
            self._anchors[anchor] = node
            self._sizes[anchor] = 1 if before is None else self._values - before
        if not self._stack:
            self.root = node
            return
        opened = self._stack[-1]
        if isinstance(opened.node, Sequence):
            opened.node.items.append(node)
        elif opened.key is None:
            opened.key = self._key(node)
        else:
            key, opened.key = opened.key, None
            self._entry(opened, key, node)

    def _key(self, node: Node) -> Scalar | Broken:
        if isinstance(node, Scalar):
            return node
        if not isinstance(node, Broken):
            self._problem(node.line, node.column, "a key must be one word, not a list or mapping")
        return Broken(node.line, node.column)

    def _entry(self, opened: _Open, key: Scalar | Broken, value: Node) -> None:
        if not isinstance(key, Scalar) or not isinstance(opened.node, Mapping):
            return
        if key.text == "<<" and key.plain:
            opened.merges.append((key, value))
            return
        first = opened.node.entries.get(key.text)
        if first is not None:
            message = f'"{_short(key.text)}" stands here twice; first in line {first[0].line}'
            self._problem(key.line, key.column, message)
            return
        opened.node.entries[key.text] = (key, value)

    def _merge(self, target: Mapping, key: Scalar, value: Node) -> None:
        for node in value.items if isinstance(value, Sequence) else [value]:
            if isinstance(node, Broken):
                continue
            if not isinstance(node, Mapping):
                self._problem(key.line, key.column, "`<<` takes a mapping, or a list of mappings")
                return
            self._copy(len(node.entries) + 1, key.line, key.column)
            for name, entry in node.entries.items():
                target.entries.setdefault(name, entry)


def _odd(text: str) -> str:
    # Most values are plain ASCII without a NUL: one C call instead of a loop in Python.
    return "" if text.isascii() and "\0" not in text else text


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
