"""The backends that `config.yml` in dstack's folder names: what runs can be put on."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from ..errors import FileErrors
from .forms import ListForm, Property, Reader, RecordForm, ScalarForm
from .packed import Memory, parse_once
from .profile import LABEL, one_of
from .quantities import BadValue
from .source import Mapping, Scalar, Sequence

EngineChoice = Literal["auto", "process", "docker", "podman"]
BACKEND_TYPES = ("local",)
# What a task without `image` runs in where the engine is a container engine.
BASE_IMAGE = "python:{python}-slim"


class Backend(msgspec.Struct, frozen=True):
    """One place for runs; `engine` auto: what the task needs and the machine has."""

    name: str = "local"
    type: Literal["local"] = "local"
    engine: EngineChoice = "auto"
    base_image: str = BASE_IMAGE


DEFAULT_BACKENDS = (Backend(),)


def _base_image(text: str) -> str:
    rest = text.replace("{python}", "")
    if not rest.strip() or "{" in rest or "}" in rest:
        message = "must be the name of an image; {python} is the only thing that is replaced"
        raise BadValue(message)
    return text


BACKEND: dict[str, Property] = {
    "name": Property(LABEL, "What `--backend` calls it.", example="name: local", required=True),
    "type": Property(
        one_of(BACKEND_TYPES), "Where runs are put.", default="local", example="type: local"
    ),
    "engine": Property(
        one_of(get_args(EngineChoice)),
        "How runs are executed.",
        default="auto",
        example="engine: process",
    ),
    "base_image": Property(
        ScalarForm("an image", _base_image, {"type": "string", "pattern": "\\S"}),
        "The image of a task without one on an engine for containers; {python} is its version.",
        default=BASE_IMAGE,
        example='base_image: "registry.example.com/python:{python}"',
    ),
}
CONFIG: dict[str, Property] = {
    "backends": Property(
        ListForm(
            RecordForm("a mapping", BACKEND, lambda read: Backend(**read)),
            "a list of backends",
            least=1,
        ),
        "The backends, in order of preference.",
        default="one, called local",
        example="backends: [{name: local, type: local}]",
    ),
}


def load_backends(
    source: bytes | None, filename: str, memory: Memory | None = None
) -> tuple[Backend, ...]:
    """The backends of a `config.yml`; None (there is no such file) is the machine itself.

    Raises FileErrors with everything that is wrong in it.
    """
    if source is None:
        return DEFAULT_BACKENDS
    document = parse_once(source, filename, memory)
    reader = Reader(document, None)
    form = RecordForm("a mapping", CONFIG, lambda read: read.get("backends", DEFAULT_BACKENDS))
    backends: Any = form.read(document.root, reader, "")
    if isinstance(document.root, Mapping):
        _check_names(document.root.get("backends"), reader)
    if reader.problems:
        raise FileErrors(sorted(reader.problems, key=lambda each: (each.line, each.column)))
    return tuple(backends)


def _check_names(node: object, reader: Reader) -> None:
    seen: set[str] = set()
    for item in node.items if isinstance(node, Sequence) else ():
        name = item.get("name") if isinstance(item, Mapping) else None
        if isinstance(name, Scalar):
            if name.text in seen:
                reader.problem(name, "backends.name", f'"{name.text}" stands here twice')
            seen.add(name.text)
