"""Reading YAML: positions, text as written, and every kind of broken file."""

from __future__ import annotations

import pytest
import yaml

from dstack.config.source import MAX_BYTES, Mapping, Scalar, Sequence, parse
from dstack.errors import FileErrors


def scalar(text: str, key: str = "a") -> Scalar:
    root = parse(text.encode(), "f").root
    assert isinstance(root, Mapping)
    node = root.get(key)
    assert isinstance(node, Scalar)
    return node


def errors(source: bytes | str) -> list[str]:
    """The problems of a file, whether they stopped the reading or not."""
    data = source.encode() if isinstance(source, str) else source
    try:
        return [str(problem) for problem in parse(data, "f").problems]
    except FileErrors as caught:
        return [str(problem) for problem in caught.problems]


@pytest.mark.parametrize(
    "text", ["3.10", "true", "no", "22:22", "0x10", "010", "1e3", "2024-01-01", "1_000", "NaN"]
)
def test_a_scalar_keeps_the_text_that_was_written(text: str) -> None:
    assert scalar(f"a: {text}\n").text == text


def test_positions_count_from_one() -> None:
    root = parse("é: x\nb:\n  - 'ü'\n  -   y\n".encode(), "f").root
    assert isinstance(root, Mapping)
    key, value = root.entries["b"]
    assert (key.line, key.column) == (2, 1)
    assert isinstance(value, Sequence)
    assert [(item.line, item.column) for item in value.items] == [(3, 5), (4, 7)]


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter() -> None:
    node = scalar("\ufeffx: 1\r\na: b\r\n")
    assert (node.text, node.line, node.column) == ("b", 2, 4)


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_null_is_null_only_without_quotes(text: str) -> None:
    assert scalar(f"a: {text}\n").null
    assert not scalar(f'a: "{text}"\n').null


def test_an_alias_is_the_same_value_at_its_own_place() -> None:
    node = scalar("x: &x hello\na: *x\n")
    assert (node.text, node.line, node.column) == ("hello", 2, 4)


def test_merge_keys_add_what_is_not_there() -> None:
    text = "x: &x {a: 1, b: 2}\ny: &y {c: 3, b: 9}\nz:\n  <<: [*x, *y]\n  a: 0\n"
    root = parse(text.encode(), "f").root
    assert isinstance(root, Mapping)
    merged = root.get("z")
    assert isinstance(merged, Mapping)
    found = {k: v.text for k, (_, v) in merged.entries.items() if isinstance(v, Scalar)}
    assert found == {"a": "0", "b": "2", "c": "3"}


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    (problem,) = errors("\n".join(lines))
    assert "aliases and `<<` copy more than 50000 values" in problem


def test_a_long_list_under_many_aliases_is_refused() -> None:
    text = f"a: &a [{'x,' * 1000}]\nb: [{'*a,' * 1000}]\n"
    assert errors(text) == ["f:2:152: aliases and `<<` copy more than 50000 values"]


def test_a_bomb_of_merge_keys_is_refused() -> None:
    big = ", ".join(f"k{n}: 1" for n in range(200))
    text = f"a: &a {{{big}}}\nb:\n  <<: [{', '.join(['*a'] * 300)}]\n"
    assert errors(text) == ["f:3:504: aliases and `<<` copy more than 50000 values"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"", "f:1:1: the file is empty"),
        (b"# nothing\n", "f:1:1: the file is empty"),
        (b"---\n", "f:1:1: the file is empty"),
        (b"a: \xff\n", "f:1:4: the file is not UTF-8 text"),
        ("é\né: ".encode() + b"\xc3", "f:2:4: the file is not UTF-8 text"),
        (b"\x7fELF\0\0", "f:1:5: the file is not text: it holds a NUL byte"),
        (
            b"a: b\nc: \x1b[0m\n",
            "f:2:4: the file is not text: it holds the control character U+001B",
        ),
        (b'a: "\\0"\n', "f:1:4: a value cannot hold a NUL or half a character"),
        (b" " * (MAX_BYTES + 1), "f:1:1: the file is larger than 1024 KiB"),
        ("a: b\n---\nc: d\n", "f:2:1: a second document starts here; a file holds one"),
        ("a: 1\nb: 2\na: 3\n", 'f:3:1: "a" stands here twice; first in line 1'),
        ("a: &a [*a]\n", "f:1:8: `*a` stands inside what it names"),
        ("? [x]\n: y\n", "f:1:3: a key must be one word, not a list or mapping"),
        ("a: !foo x\n", "f:1:4: a tag (`!foo`) means nothing here"),
        ("a: !!python/none x\n", "f:1:4: a tag (`!!python/none`) means nothing here"),
        ("a:\n  <<: x\n", "f:2:3: `<<` takes a mapping, or a list of mappings"),
        ("[" * 60, "f:1:51: values are nested more than 50 deep"),
        ("- " * 60, "f:1:101: values are nested more than 50 deep"),
    ],
)
def test_files_that_cannot_be_read(source: bytes | str, expected: str) -> None:
    assert errors(source) == [expected]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "ports:\n  - *:8000\n",
            "f:2:5: a `*` at a value's start is a YAML alias, but no name follows\n"
            '  hint: quote it: "*:8000"',
        ),
        (
            "ports: [*:8000]\n",
            "f:1:9: a `*` at a value's start is a YAML alias, but no name follows\n"
            '  hint: quote it: "*:8000"',
        ),
        (
            "a: *x\n",
            'f:1:4: `*x` names nothing before it\n  hint: to write the text itself, quote it: "*x"',
        ),
        ("a:\n\t- b\n", "f:2:1: a tab cannot indent\n  hint: indent with spaces"),
        (
            "a: @x\n",
            "f:1:4: an unquoted value cannot start with `@`\n"
            '  hint: put the value in quotes: "..."',
        ),
        (
            "a: b: c\n",
            "f:1:5: `: ` is not expected here\n"
            "  hint: quote a value that holds `: `, and indent the keys of one mapping alike",
        ),
        (
            "x: 1\na: 'b\n",
            "f:2:4: this quote is never closed\n  hint: close it, or double it inside '...'",
        ),
        (
            'a: "\\q"\n',
            "f:1:5: this escape does not exist inside double quotes\n"
            "  hint: write two backslashes, or use single quotes",
        ),
        (
            "a: {b\n",
            "f:1:4: a `{` is not closed, or a comma is missing\n"
            "  hint: close the bracket, or quote the value if it is text",
        ),
        (
            "a:\n  - b\n - c\n",
            "f:3:2: this does not fit what stands above it\n"
            "  hint: indent the items of one list or mapping alike, and quote what is text",
        ),
        (
            'a: "b"\n"c"\n',
            "f:2:1: this line is not `name: value`\n  hint: add the `:`, or check the indentation",
        ),
        (
            "a: - b\n",
            "f:1:4: a list cannot start on this line\n  hint: start it on the next line",
        ),
        (
            "a: |x\n  y\n",
            "f:1:4: after `|` or `>` only `-`, `+` and a comment may follow\n"
            '  hint: put the value in quotes: "..."',
        ),
    ],
)
def test_broken_yaml_is_explained_in_our_own_words(source: str, expected: str) -> None:
    assert errors(source) == [expected]


def test_problems_before_the_broken_place_are_reported_too() -> None:
    assert len(errors("a: 1\na: 2\nb: @x\n")) == 2


@pytest.mark.parametrize(
    "source", ["ports: [*:8000]\n", "a:\n\t- b\n", "a: 'b\n", "a: b: c\n", "a: [1,\n", "x: @y\n"]
)
def test_the_parser_without_libyaml_says_the_same(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_libyaml = errors(source)
    monkeypatch.delattr(yaml, "CBaseLoader")
    assert errors(source) == with_libyaml
    assert scalar("a: 3.10 \nb: &x [y]\nc: *x\n").text == "3.10"
