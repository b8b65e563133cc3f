"""What is remembered of a file that was read before is what reading it would give."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.config.packed import pack, parse_once, unpack
from dstack.config.source import Document, Mapping, Node, Scalar, Sequence, parse
from dstack.errors import FileErrors


class Remembered(dict[str, bytes]):
    """A memory that counts what it is asked in vain."""

    missed = 0

    def recall(self, key: str) -> bytes | None:
        self.missed += key not in self
        return self.get(key)

    def keep(self, key: str, data: bytes) -> None:
        self[key] = data


def shown(node: Node) -> object:
    """A tree as something that can be compared."""
    place = (type(node).__name__, node.line, node.column)
    if isinstance(node, Scalar):
        return (*place, node.text, node.plain, node.start, node.end, node.origin)
    if isinstance(node, Sequence):
        return (*place, [shown(item) for item in node.items])
    if isinstance(node, Mapping):
        return (*place, [(k, shown(key), shown(v)) for k, (key, v) in node.entries.items()])
    return place


def read(document: Document) -> object:
    return document.filename, document.text, shown(document.root), document.problems


_SCALARS = st.text("aé:#'\"-~ \n", max_size=8).map(repr) | st.sampled_from(["3.10", "~", "", "''"])
_FILES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
        ),
    ),
    max_leaves=12,
)


@given(_FILES)
def test_the_tree_is_the_same(text: str) -> None:
    try:
        document = parse(text.encode(), "f")
    except FileErrors:
        return
    packed = pack(document.root)
    if not document.problems:
        assert packed is not None
        assert shown(unpack(packed)) == shown(document.root)


def test_a_file_is_parsed_once() -> None:
    memory, source = Remembered(), "é: &x [1, 'two']\nb: {c: *x}\nd: |\n  text\n".encode()
    first = parse_once(source, "f", memory)
    again = parse_once(source, "g", memory)
    assert memory.missed == 1
    assert read(first) == read(parse(source, "f"))
    assert read(again) == read(parse(source, "g"))
    parse_once(source + b"e: 1\n", "f", memory)
    assert memory.missed == 2


@pytest.mark.parametrize("source", [b"a: 1\na: 2\n", b"a: *b\n", b"a: [1\n", b"", b"\xff"])
def test_what_is_wrong_is_not_remembered(source: bytes) -> None:
    memory = Remembered()
    for _ in range(2):
        try:
            problems = parse_once(source, "f", memory).problems
        except FileErrors as caught:
            problems = caught.problems
        assert problems
    assert not memory


@pytest.mark.parametrize("damaged", [b"", b"{", b"\x93\x00\x01\x02", b"\x94\xa3map\x01\x01\x90"])
def test_what_is_damaged_is_read_anew(damaged: bytes) -> None:
    memory, source = Remembered(), b"a: [1]\n"
    parse_once(source, "f", memory)
    (key,) = memory
    memory[key] = damaged
    assert read(parse_once(source, "f", memory)) == read(parse(source, "f"))
    assert memory[key] != damaged


def test_what_is_large_is_not_remembered() -> None:
    memory = Remembered()
    parse_once(b"a: &a [1, 1, 1, 1]\nb: [" + b", ".join([b"*a"] * 900) + b"]\n", "f", memory)
    assert not memory
