"""The trees of files that were read before: the YAML parser's import is a tenth of a short command.

A tree depends on nothing but the file's bytes, so it is kept by their digest. Only what is plain is
kept: no file with a problem in it, and none that is large or uses aliases to be so.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from ..digest import digest
from .source import Document, Mapping, Node, Scalar, Sequence, decode, parse

# To be changed with what a tree is, or with what `source.parse` makes of a file.
_FORM = b"1"
_MOST = 2_000  # values


class Memory(Protocol):
    """Where trees are kept. May forget any of them at any time."""

    def recall(self, key: str) -> bytes | None:
        """What was kept under this key, whole and unchanged, or None."""
        ...

    def keep(self, key: str, data: bytes) -> None:
        """Keep it, where that can be done. Raises nothing."""
        ...


def parse_once(source: bytes, filename: str, memory: Memory | None) -> Document:
    """What `source.parse` gives, from memory where it has it. Raises FileErrors."""
    if memory is None:
        return parse(source, filename)
    key = digest(_FORM + source)
    known = memory.recall(key)
    if known is not None:
        try:
            return Document(filename, decode(source, filename), unpack(known), [])
        except (msgspec.DecodeError, TypeError, ValueError):
            pass  # not ours
    document = parse(source, filename)
    data = None if document.problems else pack(document.root)
    if data is not None:
        memory.keep(key, data)
    return document


def pack(root: Node) -> bytes | None:
    """The tree as bytes; None where it is too large to be worth it."""
    left = _MOST

    def plain(node: Node) -> list[Any]:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooLarge
        place = (node.line, node.column)
        if isinstance(node, Scalar):
            return ["", *place, node.text, node.plain, node.start, node.end, node.origin]
        if isinstance(node, Sequence):
            return ["list", *place, *map(plain, node.items)]
        if isinstance(node, Mapping):
            pairs = node.entries.values()
            return ["map", *place, *(plain(each) for pair in pairs for each in pair)]
        raise _TooLarge

    try:
        packed = plain(root)
    except _TooLarge:
        return None
    return msgspec.msgpack.encode(packed)


class _TooLarge(Exception):
    pass


def unpack(data: bytes) -> Node:
    """The tree. Raises DecodeError, TypeError or ValueError for what `pack` never made."""
    return _node(msgspec.msgpack.decode(data))


def _node(packed: list[Any]) -> Node:
    kind, line, column, *rest = packed
    if kind == "":
        return Scalar(line, column, *rest)
    nodes = [_node(each) for each in rest]
    if kind == "list":
        return Sequence(line, column, nodes)
    if kind != "map":
        raise ValueError
    entries: dict[str, tuple[Scalar, Node]] = {}
    for key, value in zip(nodes[::2], nodes[1::2], strict=True):
        if not isinstance(key, Scalar):
            raise TypeError
        entries[key.text] = (key, value)
    return Mapping(line, column, entries)
