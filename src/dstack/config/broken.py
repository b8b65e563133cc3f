"""What a YAML parser complains about, said in our own words.

The parsers (libyaml and PyYAML's own) name the same faults differently; what tells them apart
reliably is the context and the character at which they stopped.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from ..errors import Problem

ParserError: TypeAlias = Any  # yaml.YAMLError

_QUOTE = 'put the value in quotes: "..."'
_BY_CONTEXT = {
    "while scanning an anchor": ("an `&` at a value's start names an anchor, but no name follows"),
    "while scanning a directive": "a line that starts with % is no part of a task file",
    "while scanning a block scalar": "after `|` or `>` only `-`, `+` and a comment may follow",
    "while parsing a tag": "a `!` at a value's start is a tag, but no name follows",
    "while scanning a tag": "a `!` at a value's start is a tag, but no name follows",
    "while parsing a node": "a tag (`!...`) means nothing here",
}


def explain(error: ParserError, filename: str, text: str) -> Problem:
    """A parser's error as a Problem; `error` is a yaml.YAMLError."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return _unprintable(filename, text)
    context = getattr(error, "context", None) or ""
    start = getattr(error, "context_mark", None) or mark
    index = min(mark.index, len(text))
    at_end = not text[index:].strip()
    line, column = mark.line + 1, mark.column + 1
    started = (start.line + 1, start.column + 1)
    word = (error.problem or "").lower()
    message, hint = "this is not valid YAML", "check the indentation, and quote what is text"
    if context == "while scanning an alias":
        rest = text[min(start.index, len(text)) :].split("\n", 1)[0].rstrip(" \r,]}")
        line, column = started
        message = "a `*` at a value's start is a YAML alias, but no name follows"
        hint = f'quote it: "{rest}"' if rest and '"' not in rest else _QUOTE
    elif context in _BY_CONTEXT:
        line, column = started
        message, hint = _BY_CONTEXT[context], _QUOTE
    elif "quoted scalar" in context or "double-quoted" in context:
        if "end of stream" in word or "document" in word:
            line, column = started
            message, hint = "this quote is never closed", "close it, or double it inside '...'"
        else:
            message = "this escape does not exist inside double quotes"
            hint = "write two backslashes, or use single quotes"
    elif context in ("while parsing a flow mapping", "while parsing a flow sequence") or (
        context == "while parsing a flow node"
    ):
        bracket = "{" if "mapping" in context else "["
        if at_end:
            line, column = _last(text) if context.endswith("node") else started
        message = f"a `{bracket}` is not closed, or a comma is missing"
        hint = "close the bracket, or quote the value if it is text"
    elif "cannot start any token" in word:
        message, hint = _token(text[index : index + 1])
    elif "mapping values are not allowed" in word:
        message = "`: ` is not expected here"
        hint = "quote a value that holds `: `, and indent the keys of one mapping alike"
    elif "sequence entries are not allowed" in word:
        message, hint = "a list cannot start on this line", "start it on the next line"
    elif "simple key" in context:
        line, column = started
        message, hint = "this line is not `name: value`", "add the `:`, or check the indentation"
    elif "block collection" in context or "block mapping" in context:
        message = "this does not fit what stands above it"
        hint = "indent the items of one list or mapping alike, and quote what is text"
    return Problem(filename, line, column, None, message, hint)


def _token(char: str) -> tuple[str, str]:
    if char == "\t":
        return "a tab cannot indent", "indent with spaces"
    return f"an unquoted value cannot start with `{char}`", _QUOTE


def _last(text: str) -> tuple[int, int]:
    kept = text.rstrip()
    return kept.count("\n") + 1, max(1, len(kept) - kept.rfind("\n") - 1)


def _unprintable(filename: str, text: str) -> Problem:
    for index, char in enumerate(text):
        # YAML 1.1, section 4.1.1: the characters that may stand in a stream.
        if char not in "\t\n\r\x85" and not (
            " " <= char <= "~" or "\xa0" <= char <= "\ufffd" or char >= "\U00010000"
        ):
            line, column = text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)
            message = f"the file is not text: it holds the control character U+{ord(char):04X}"
            return Problem(filename, line, column, None, message)
    return Problem(filename, 1, 1, None, "the file is not text that YAML can hold")
