"""What a property may hold: each form reads a value, and says the same as JSON Schema.

A form never raises for a wrong value: it adds a problem to the reader and returns INVALID, so
that everything that is wrong in a file is reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from ..errors import Problem
from .interpolate import BadExpression, Expression, Raw, Values, parts_of, split
from .quantities import BadValue, shown
from .shapes import Secret, Text
from .source import Broken, Document, Node, Scalar, Sequence
from .source import Mapping as MappingNode

# What a form reads: its own type, which the builders of the shapes know, or INVALID.
Value: TypeAlias = Any
INVALID: Value = object()
Schema = dict[str, Any]
MAX_GUESSES = 50

# In JSON a scalar that YAML reads as a number or a truth value is no string; the text counts.
ANY_SCALAR: Schema = {"type": ["string", "number", "boolean"]}


def pattern(expression: str, *, numbers: bool = True) -> Schema:
    """A schema for text: the pattern, or anything that holds `${{ }}`."""
    text = f"^(?:{expression})$|\\$\\{{\\{{"
    if not numbers:
        return {"type": "string", "pattern": text}
    return {"type": ["string", "number"], "pattern": text, "minimum": 0}


class Reader:
    """Reads the values of one file, and collects what is wrong with it.

    `values` None: `${{ }}` is not replaced (profiles).
    """

    def __init__(self, document: Document, values: Values | None) -> None:
        self.document = document
        self.values = values
        self.problems = document.problems
        self.guesses = 0

    def problem(self, at: Node, where: str, text: str, hint: str | None = None) -> Value:
        """Add a problem; returns INVALID."""
        place_of = (at.line, at.column)
        self.problems.append(Problem(self.document.filename, *place_of, where or None, text, hint))
        return INVALID

    def pieces(self, node: Scalar, where: str, secrets: bool) -> list[Raw | Text | Secret] | None:
        """A value with its expressions replaced; None when one of them is wrong."""
        if self.values is None or "${{" not in node.text:
            return [Raw(node.text)]
        done: list[Raw | Text | Secret] = []
        wrong = False
        places: list[Node] = []
        for piece in split(node.text):
            if not isinstance(piece, Expression):
                done.append(piece)
                continue
            try:
                done.append(self.values.replace(piece, secrets))
            except BadExpression as error:
                wrong = True
                places = places or self._places(node)
                at = places[error.index] if error.index < len(places) else node
                self.problem(at, where, str(error), error.hint)
        return None if wrong else done

    def text(self, node: Scalar, where: str) -> str | None:
        """A value's text, expressions replaced; None when one is wrong or a secret."""
        pieces = self.pieces(node, where, secrets=False)
        if pieces is None:
            return None
        return "".join(piece.text for piece in pieces if not isinstance(piece, Secret))

    def unknown_args(self, node: Scalar) -> bool:
        """Whether a value cannot be judged because the command line is not known."""
        return self.values is not None and self.values.args is None and "run.args" in node.text

    def _places(self, node: Scalar) -> list[Node]:
        """Where each `${{` of a value stands in the file.

        Escapes apart, a `${{` in a value is a `${{` in the file, in the same order.
        """
        text, places = self.document.text, []
        line, before = node.origin, node.start
        found = text.find("${{", node.start, node.end)
        while found >= 0:
            line += text.count("\n", before, found)
            places.append(Node(line, found - text.rfind("\n", 0, found)))
            before, found = found, text.find("${{", found + 1, node.end)
        return places


class Form:
    """What a value may be. `what` completes "must be ..."."""

    def __init__(self, what: str) -> None:
        self.what = what

    def read(self, node: Node, reader: Reader, where: str) -> Value:
        """The value, or INVALID."""
        if isinstance(node, Broken):
            return INVALID
        return reader.problem(node, where, f"must be {self.what}, not {kind(node)}")

    def schema(self) -> Schema:
        """The same as JSON Schema."""
        raise NotImplementedError


def kind(node: Node) -> str:
    """A value as a message names it."""
    if isinstance(node, Scalar):
        return "nothing" if node.null else shown(node.text)
    return "a list" if isinstance(node, Sequence) else "a mapping"


class ScalarForm(Form):
    """One scalar, turned into a value by `parse` (which raises BadValue)."""

    def __init__(self, what: str, parse: Callable[[str], Any], schema: Schema) -> None:
        super().__init__(what)
        self.parse = parse
        self._schema = schema

    def read(self, node: Node, reader: Reader, where: str) -> Value:
        """The value, or INVALID."""
        if not isinstance(node, Scalar) or node.null:
            return self._refuse(node, reader, where)
        text = reader.text(node, where)
        if text is None or reader.unknown_args(node):
            return INVALID
        try:
            return self.parse(text)
        except BadValue as error:
            return reader.problem(node, where, str(error), error.hint)

    def _refuse(self, node: Node, reader: Reader, where: str) -> Value:
        hint = None
        if isinstance(node, MappingNode) and len(node.entries) == 1:
            hint = "quote it if it is text that holds `: `"
        if isinstance(node, Broken):
            return INVALID
        if isinstance(node, Scalar) and node.text == "~":
            hint = 'an unquoted ~ means nothing in YAML: quote it, "~"'
        return reader.problem(node, where, f"must be {self.what}, not {kind(node)}", hint)

    def schema(self) -> Schema:
        """The same as JSON Schema."""
        return self._schema


class PartsForm(ScalarForm):
    """Text in which a secret may stand; its value is a tuple of Parts."""

    def __init__(self, what: str, *, variables: bool) -> None:
        super().__init__(what, str, dict(ANY_SCALAR))
        self.variables = variables

    def read(self, node: Node, reader: Reader, where: str) -> Value:
        """The value, or INVALID."""
        if not isinstance(node, Scalar) or node.null:
            return self._refuse(node, reader, where)
        pieces = reader.pieces(node, where, secrets=True)
        return INVALID if pieces is None else parts_of(pieces, self.variables)


class ListForm(Form):
    """A list of values of one form; its value is a tuple of those that are right."""

    def __init__(self, item: Form, what: str, *, least: int = 0) -> None:
        super().__init__(what)
        self.item = item
        self.least = least

    def read(self, node: Node, reader: Reader, where: str) -> Value:
        """The value, or INVALID."""
        if isinstance(node, Scalar) and not node.null:
            hint = f"write it as a list: [{_flow(node)}], or on lines of its own, each after `- `"
            return reader.problem(node, where, f"must be {self.what}, not {kind(node)}", hint)
        if not isinstance(node, Sequence):
            return super().read(node, reader, where)
        if len(node.items) < self.least:
            return reader.problem(node, where, "the list is empty")
        read = [(item, self.item.read(item, reader, where)) for item in node.items]
        right = [(item, value) for item, value in read if value is not INVALID]
        self.check(right, reader, where)
        return tuple(value for _, value in right)

    def check(self, items: list[tuple[Node, Any]], reader: Reader, where: str) -> None:
        """What holds between the items."""

    def schema(self) -> Schema:
        """The same as JSON Schema."""
        schema: Schema = {"type": "array", "items": self.item.schema()}
        return schema | ({"minItems": self.least} if self.least else {})


def _flow(node: Scalar) -> str:
    return shown(node.text) if '"' not in node.text else "..."


class UniqueForm(ListForm):
    """A list in which no value may stand twice."""

    def check(self, items: list[tuple[Node, Any]], reader: Reader, where: str) -> None:
        """What holds between the values."""
        seen: dict[Any, Node] = {}
        for node, value in items:
            if value in seen:
                text = f"{kind(node)} stands here twice; first in line {seen[value].line}"
                reader.problem(node, where, text)
            seen.setdefault(value, node)


class Property:
    """One property: its form, what it means, its default in words, and an example."""

    __slots__ = ("default", "doc", "example", "form", "required")

    def __init__(
        self, form: Form, doc: str, *, default: str = "", example: str, required: bool = False
    ) -> None:
        self.form = form
        self.doc = doc
        self.default = default
        self.example = example
        self.required = required

    def schema(self) -> Schema:
        """The form's schema with the words an editor shows."""
        words = self.doc + (f" Default: {self.default}." if self.default else "")
        return self.form.schema() | {"description": words}


Properties = Mapping[str, Property]


class RecordForm(Form):
    """A mapping with known properties; `build` makes the value of those that are right."""

    def __init__(
        self,
        what: str,
        properties: Properties,
        build: Callable[[dict[str, Any]], Any],
    ) -> None:
        super().__init__(what)
        self.properties = properties
        self.build = build

    def read(self, node: Node, reader: Reader, where: str) -> Value:
        """The value, or INVALID."""
        if not isinstance(node, MappingNode):
            return super().read(node, reader, where)
        read = read_properties(node, self.properties, reader, where)
        meant = check_names(node, self.properties, reader, where)
        missing = check_required(node, self.properties, reader, where, meant)
        self.check(node, reader, where)
        return INVALID if missing else self.build(read)

    def check(self, node: MappingNode, reader: Reader, where: str) -> None:
        """What holds between the properties."""

    def schema(self) -> Schema:
        """The same as JSON Schema."""
        return record_schema(self.properties)


def record_schema(properties: Properties) -> Schema:
    """The schema of a mapping with these properties and no others."""
    required = [name for name, each in properties.items() if each.required]
    schema: Schema = {
        "type": "object",
        "properties": {name: each.schema() for name, each in properties.items()},
        "additionalProperties": False,
    }
    return schema | ({"required": required} if required else {})


def read_properties(
    node: MappingNode, properties: Properties, reader: Reader, where: str
) -> dict[str, Any]:
    """The right ones of a mapping's properties, by name; the wrong ones are reported."""
    read: dict[str, Any] = {}
    for name, (key, value) in node.entries.items():
        if name not in properties:
            continue
        path = f"{where}.{name}" if where else name
        form = properties[name].form
        if isinstance(value, Scalar) and value.null and value.text == "":
            hint = "give it one, or remove the line"
            reader.problem(key, path, f"has no value; it must be {form.what}", hint)
            continue
        result = form.read(value, reader, path)
        if result is not INVALID:
            read[name] = result
    return read


def check_names(node: MappingNode, known: Iterable[str], reader: Reader, where: str) -> set[str]:
    """Report the properties that do not exist; returns those that were probably meant."""
    names = list(known)
    meant: set[str] = set()
    for name, (key, _) in node.entries.items():
        if name not in names:
            # Guessing costs a millisecond or so, and nobody misspells more than a few names.
            guess = closest(name, names) if reader.guesses < MAX_GUESSES else None
            reader.guesses += 1
            meant |= {guess} if guess else set()
            hint = f'did you mean "{guess}"?' if guess else "there are: " + ", ".join(names)
            path = f"{where}.{shown(name)[1:-1]}" if where else shown(name)[1:-1]
            reader.problem(key, path, "there is no such property", hint)
    return meant


def check_required(
    node: MappingNode, properties: Properties, reader: Reader, where: str, meant: set[str]
) -> bool:
    """Report the required properties that are missing; whether there are any.

    Those in `meant` were only misspelt, which is reported already.
    """
    missing = [name for name, each in properties.items() if each.required and not node.get(name)]
    for name in (each for each in missing if each not in meant):
        path = f"{where}.{name}" if where else name
        reader.problem(node, path, "is required", f"add `{properties[name].example}`")
    return bool(missing)


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    names = list(known)
    lower = name.lower().replace("-", "_")
    for each in names:
        if len(each) > 2 and (lower == each or lower.startswith(each) or each.startswith(lower)):
            return each
    import difflib

    return next(iter(difflib.get_close_matches(lower[:60], names, 1, 0.6)), None)


class EitherForm(Form):
    """One form for scalars, one for lists, one for mappings."""

    def __init__(
        self,
        what: str,
        *,
        scalar: Form | None = None,
        sequence: Form | None = None,
        mapping: Form | None = None,
    ) -> None:
        super().__init__(what)
        self.scalar = scalar
        self.sequence = sequence
        self.mapping = mapping

    def read(self, node: Node, reader: Reader, where: str) -> Value:
        """The value, or INVALID."""
        form: Form | None = self.scalar
        if isinstance(node, Sequence):
            form = self.sequence
        elif isinstance(node, MappingNode):
            form = self.mapping
        elif isinstance(node, Scalar) and node.null:
            form = None
        return form.read(node, reader, where) if form else super().read(node, reader, where)

    def schema(self) -> Schema:
        """The same as JSON Schema."""
        forms = (self.scalar, self.sequence, self.mapping)
        return {"anyOf": [form.schema() for form in forms if form is not None]}
