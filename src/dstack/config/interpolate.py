"""`${{ NAMESPACE.NAME }}`: what it is replaced by, and where it may not stand.

`run.args`, `run.name` and `secrets.NAME` exist. `$${{` is a literal `${{`.
"""

from __future__ import annotations

from .quantities import BadValue, shown
from .shapes import Part, Secret, Text
from .values import expand_variables

_OPEN, _CLOSE = "${{", "}}"
_EXISTING = "run.args, run.name and secrets.NAME exist"
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")


class Raw:
    """Text as it stands in the file; in `env` its `$NAME` are variables."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Expression:
    """The inside of `${{ }}`; `index` counts the `${{` before it in the same value."""

    __slots__ = ("closed", "index", "text")

    def __init__(self, text: str, index: int, closed: bool) -> None:
        self.text = text
        self.index = index
        self.closed = closed


class BadExpression(BadValue):
    """An expression that cannot be replaced; `index` as in Expression."""

    def __init__(self, message: str, index: int, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.index = index


def split(text: str) -> list[Raw | Text | Expression]:
    """The pieces of a value; Text where it is literal even in `env` (`$${{`)."""
    pieces: list[Raw | Text | Expression] = []
    at = count = 0
    while (opened := text.find(_OPEN, at)) >= 0:
        if opened > at and text[opened - 1] == "$":
            pieces += [Raw(text[at : opened - 1]), Text(_OPEN)]
            at = opened + len(_OPEN)
        else:
            pieces.append(Raw(text[at:opened]))
            inside = opened + len(_OPEN)
            closed = text.find(_CLOSE, inside)
            end = closed if closed >= 0 else len(text)
            pieces.append(Expression(text[inside:end].strip(), count, closed >= 0))
            at = end + (len(_CLOSE) if closed >= 0 else 0)
            count += text.count(_OPEN, inside, end)  # inside a malformed one
        count += 1
    pieces.append(Raw(text[at:]))
    return [piece for piece in pieces if piece.text or isinstance(piece, Expression)]


def quote(argument: str) -> str:
    """One argument, quoted for a POSIX shell."""
    if argument and _SAFE.issuperset(argument):
        return argument
    return "'" + argument.replace("'", "'\"'\"'") + "'"


class Values:
    """What expressions are replaced by.

    `args` None: they are not known (a file is only checked). `secrets` None: whether a secret
    exists is not checked. `used` collects what was asked for (`run.args`).
    """

    __slots__ = ("args", "name", "secrets", "used")

    def __init__(
        self, args: tuple[str, ...] | None, name: str | None, secrets: frozenset[str] | None
    ) -> None:
        self.args = args
        self.name = name
        self.secrets = secrets
        self.used: set[str] = set()

    def replace(self, piece: Expression, secrets: bool) -> Text | Secret:
        """One expression's value. Raises BadExpression; `secrets`: whether one may stand here."""
        inside = piece.text
        written = shown("${{ " + inside + " }}")[1:-1]
        if not piece.closed:
            message = "`${{` is not closed"
            raise BadExpression(
                message, piece.index, "close it with }}, or write $${{ for the text"
            )
        space, dot, name = (part.strip() for part in inside.partition("."))
        if not (dot and _is_word(space) and _is_word(name)):
            message = f"`{written}` is not of the form ${{{{ NAMESPACE.NAME }}}}"
            raise BadExpression(message, piece.index, _EXISTING)
        if space == "run" and name == "args":
            self.used.add("run.args")
            return Text(" ".join(quote(argument) for argument in self.args or ()))
        if space == "run" and name == "name" and self.name is not None:
            return Text(self.name)
        if space == "run" and name == "name":
            message = f"`{written}` cannot be used in the run's own name"
            raise BadExpression(message, piece.index)
        if space != "secrets":
            message = f"`{written}` does not exist"
            hint = f"in commands, write ${name}" if space == "env" else _meant(space, name)
            raise BadExpression(message, piece.index, hint)
        return self._secret(name, piece.index, secrets)

    def _secret(self, name: str, index: int, allowed: bool) -> Secret:
        if not allowed:
            message = f"the secret {name} cannot stand here"
            hint = f"pass it through env: {name}=${{{{ secrets.{name} }}}}"
            raise BadExpression(message, index, f"{hint}, and write ${name} here")
        if self.secrets is not None and name not in self.secrets:
            message = f"there is no secret {name}"
            raise BadExpression(message, index, f"set it with: dstack secrets set {name}")
        return Secret(name)


def _meant(space: str, name: str) -> str:
    if space in ("secret", "run", "runs"):
        known = {"secret": f"secrets.{name}"}.get(
            space, "run.args" if name.startswith("a") else "run.name"
        )
        return f'did you mean "{known}"?'
    return _EXISTING


def _is_word(text: str) -> bool:
    return text.isascii() and text.replace("-", "_").isidentifier()


def parts_of(pieces: list[Raw | Text | Secret], variables: bool) -> tuple[Part, ...]:
    """Joined parts; with `variables`, `$NAME` in Raw text becomes a Variable."""
    joined: list[Part] = []
    for piece in pieces:
        found: list[Part]
        if isinstance(piece, Raw):
            found = expand_variables(piece.text) if variables else [Text(piece.text)]
        else:
            found = [piece]
        for part in found:
            if isinstance(part, Text) and joined and isinstance(joined[-1], Text):
                joined[-1] = Text(joined[-1].text + part.text)
            elif not isinstance(part, Text) or part.text:
                joined.append(part)
    return tuple(joined)
