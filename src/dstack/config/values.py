"""Names, ports, variables, folders: the other values that files and the command line hold.

Every function raises BadValue, a ValueError whose message is a sentence for people.
"""

from __future__ import annotations

from .quantities import (
    BadValue,
    parse_cpu,
    parse_duration,
    parse_gpu,
    parse_price,
    parse_range_of_sizes,
    parse_seconds,
    parse_size,
    shown,
    whole,
)
from .shapes import EnvVar, Part, Port, Text, Variable

__all__ = [  # what files and the command line share, from one place
    "BadValue",
    "parse_absolute",
    "parse_bool",
    "parse_cache",
    "parse_cpu",
    "parse_duration",
    "parse_env_item",
    "parse_env_name",
    "parse_gpu",
    "parse_label",
    "parse_name",
    "parse_port",
    "parse_price",
    "parse_python",
    "parse_range_of_sizes",
    "parse_seconds",
    "parse_size",
    "parse_words",
]

PYTHONS = tuple(f"3.{minor}" for minor in range(7, 15))
MAX_NAME = 41
_LOWER = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"


def parse_name(text: str) -> str:
    """A run's name: `[a-z][a-z0-9-]{0,40}`."""
    if not text or text[0] not in _LOWER or text.strip(_LOWER + _DIGITS + "-"):
        pass
    elif len(text) <= MAX_NAME and all(ch in _LOWER + _DIGITS + "-" for ch in text):
        return text
    message = f"{shown(text)} is not a name"
    hint = f"a to z, 0 to 9 and -, starting with a letter, at most {MAX_NAME} long"
    raise BadValue(message, hint)


def parse_label(text: str) -> str:
    """The name of a profile or a backend: letters, digits, `.`, `_`, `-`; at most 64."""
    inner = text.replace("-", "").replace("_", "").replace(".", "")
    if len(text) > 64 or not (text[:1].isalnum() and inner.isascii() and inner.isalnum()):
        message = f"{shown(text)} is not a name"
        raise BadValue(
            message, "letters, digits, `.`, `_` and `-`, starting with a letter or digit"
        )
    return text


def parse_python(text: str) -> str:
    """A Python version: "3.7" to "3.14"."""
    version = text.strip()
    if version in PYTHONS:
        return version
    message = f"{shown(text)} is not one of {PYTHONS[0]} to {PYTHONS[-1]}"
    short = ".".join(version.removeprefix("python").split(".")[:2])
    raise BadValue(message, f'write "{short}"' if short in PYTHONS else None)


def parse_bool(text: str) -> bool:
    """`true` or `false`."""
    if text in ("true", "false"):
        return text == "true"
    message = f"{shown(text)} is neither true nor false"
    raise BadValue(message)


def _port(text: str, whole_text: str) -> int:
    value = whole(text)
    if value is None:
        message = f"{shown(whole_text)} is not a port"
        raise BadValue(message, 'write it as 8000, 3333:8000 or "*:8000"')
    if not 1 <= value <= 65535:
        message = f"{shown(whole_text)}: {text} is not between 1 and 65535"
        raise BadValue(message)
    return value


def parse_port(text: str) -> Port:
    """`8000`, `3333:8000` (local first) or `*:8000`."""
    local, colon, run = text.strip().rpartition(":")
    if not colon:
        port = _port(run, text)
        return Port(run=port, local=port)
    return Port(run=_port(run, text), local=None if local == "*" else _port(local, text))


def is_identifier(text: str) -> bool:
    """Whether it can be a variable's name in a shell: ASCII letters, digits, `_`."""
    return text.isascii() and text.isidentifier()


def parse_env_name(text: str) -> str:
    """The name of an environment variable."""
    if is_identifier(text):
        return text
    message = f"{shown(text)} is not the name of a variable"
    raise BadValue(message, "letters, digits and _, not starting with a digit")


def expand_variables(text: str) -> list[Part]:
    """`$NAME` and `${NAME}` become Variables, `$$` a `$`; everything else is literal."""
    parts: list[Part] = []
    literal: list[str] = []
    index = 0
    while index < len(text):
        dollar = text.find("$", index)
        if dollar < 0:
            literal.append(text[index:])
            break
        literal.append(text[index:dollar])
        name, index = _variable(text, dollar + 1)
        if name is None:
            literal.append("$")
            continue
        if any(literal):
            parts.append(Text("".join(literal)))
        literal = []
        parts.append(Variable(name))
    if any(literal):
        parts.append(Text("".join(literal)))
    return parts


def _variable(text: str, index: int) -> tuple[str | None, int]:
    """The name behind a `$` and where the text goes on; None when the `$` is literal."""
    follows = text[index : index + 1]
    if follows == "$":
        return None, index + 1
    if follows == "{":
        end = _word_end(text, index + 1)
        name = text[index + 1 : end]
        closed = text[end : end + 1] == "}"
        return (name, end + 1) if closed and is_identifier(name) else (None, index)
    end = _word_end(text, index)
    name = text[index:end]
    return (name, end) if is_identifier(name) else (None, index)


def _word_end(text: str, index: int) -> int:
    while (
        index < len(text)
        and text[index].isascii()
        and (text[index].isalnum() or text[index] == "_")
    ):
        index += 1
    return index


def parse_env_item(text: str) -> EnvVar:
    """`NAME=VALUE`, or `NAME` for the submitting shell's value."""
    name, equals, value = text.partition("=")
    parse_env_name(name)
    return EnvVar(name, tuple(expand_variables(value)) if equals else None)


def parse_words(text: str) -> tuple[str, ...]:
    """Split as a shell would: `/bin/bash -i -c`."""
    import shlex

    try:
        words = tuple(shlex.split(text))
    except ValueError:
        message = f"{shown(text)} has a quote that is not closed, or ends in a backslash"
        raise BadValue(message) from None
    if not words:
        message = "is empty"
        raise BadValue(message)
    return words


def parse_absolute(text: str) -> str:
    """An absolute path, without `.`, `..` and doubled slashes."""
    if not text.startswith("/"):
        message = f"{shown(text)} is not an absolute path"
        raise BadValue(message, "start it with /")
    return _join(text, "/")


def _join(text: str, start: str) -> str:
    kept: list[str] = []
    for part in text.split("/"):
        if part == ".." and start == "/":
            del kept[-1:]  # above the root there is the root
        elif part == "..":
            if not kept:
                message = f"{shown(text)} climbs out with .."
                raise BadValue(message)
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return start + "/".join(kept)


def parse_cache(text: str) -> str:
    """A folder that is kept between runs: absolute, relative to the run's folder, or `~/...`."""
    if not text.strip():
        message = "an empty path cannot be kept"
        raise BadValue(message)
    if text.startswith("/"):
        path = _join(text, "/")
        if path == "/":
            message = "/ cannot be kept: name a folder in it"
            raise BadValue(message)
        return path
    if text == "~" or text.startswith("~/"):
        return ("~/" + _join(text[2:], "")).rstrip("/")
    if text.startswith("~"):
        message = f"{shown(text)}: another user's home cannot be kept"
        raise BadValue(message, "write ~/FOLDER for the run's own home")
    if text.startswith("$"):
        message = f"{shown(text)}: variables are not expanded in paths"
        raise BadValue(message, "write ~/FOLDER for the home folder")
    path = _join(text, "")
    if not path:
        message = f"{shown(text)} is the run's own folder: name a folder in it"
        raise BadValue(message)
    return path
