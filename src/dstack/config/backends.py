"""The backends that `config.yml` in dstack's folder names: what runs can be put on."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from ..errors import FileErrors
from .forms import ListForm, Property, Reader, RecordForm, ScalarForm, pattern
from .packed import Memory, parse_once
from .profile import BOOL, LABEL, one_of
from .quantities import BadValue, shown
from .source import Mapping, Scalar, Sequence

EngineChoice = Literal["auto", "process", "docker", "podman"]
BackendType = Literal["local", "ssh"]
BACKEND_TYPES = get_args(BackendType)
# What only a machine that is reached through ssh has.
_SSH_ONLY = ("host", "identity_file", "root")
ROOT = "~/.dstack"
# What a task without `image` runs in where the engine is a container engine.
BASE_IMAGE = "python:{python}-slim"


class Backend(msgspec.Struct, frozen=True):
    """One place for runs; `engine` auto: what the task needs and the machine has.

    `host` (what is typed after `ssh`), `identity_file` and `root` (where dstack's folder lies
    there) are for `ssh` only.
    """

    name: str = "local"
    type: BackendType = "local"
    engine: EngineChoice = "auto"
    base_image: str = BASE_IMAGE
    host: str = ""
    identity_file: str | None = None
    root: str = ROOT
    default: bool = False


DEFAULT_BACKENDS = (Backend(),)


def _base_image(text: str) -> str:
    rest = text.replace("{python}", "")
    if not rest.strip() or "{" in rest or "}" in rest:
        message = "must be the name of an image; {python} is the only thing that is replaced"
        raise BadValue(message)
    return text


def _host(text: str) -> str:
    from .address import parse_address

    parse_address(text)
    return text


def _place(text: str) -> str:
    """A path of a file or folder that does not depend on where somebody stands."""
    if not text.startswith(("/", "~/")) or text.strip("/") == "" or not text.isprintable():
        message = f"{shown(text)} is not a path that begins with / or ~/"
        raise BadValue(message)
    return text


PLACE = ScalarForm("a path that begins with / or ~/", _place, pattern("~?/.*", numbers=False))
HOST = ScalarForm("a machine's name for ssh", _host, pattern("[^\\s-]\\S*", numbers=False))
BACKEND: dict[str, Property] = {
    "name": Property(LABEL, "What `--backend` calls it.", example="name: local", required=True),
    "type": Property(
        one_of(BACKEND_TYPES),
        "Where runs are put: on this machine, or on one that `ssh` reaches.",
        default="local",
        example="type: ssh",
    ),
    "host": Property(
        HOST,
        "With `type: ssh`, the machine: what is typed after `ssh`, or `user@host:port`.",
        example="host: me@gpu-box",
    ),
    "identity_file": Property(
        PLACE,
        "With `type: ssh`, the private key on this machine.",
        default="what ssh takes by itself",
        example="identity_file: ~/.ssh/gpu_box",
    ),
    "root": Property(
        PLACE,
        "With `type: ssh`, dstack's folder there.",
        default=ROOT,
        example="root: /scratch/me/dstack",
    ),
    "default": Property(
        BOOL,
        "Whether it is taken when none is named; at most one backend is.",
        default="false, and the first one is taken",
        example="default: true",
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


class _BackendForm(RecordForm):
    def check(self, node: Mapping, reader: Reader, where: str) -> None:
        """What holds between the values."""
        kind = node.get("type")
        far = isinstance(kind, Scalar) and kind.text == "ssh"
        if far and node.get("host") is None:
            hint = "host: what you type after `ssh` to get there"
            reader.problem(node, f"{where}.host", "is required with type: ssh", hint)
        for name in () if far else _SSH_ONLY:
            if name in node.entries:
                text = "is only for a backend of type: ssh"
                reader.problem(node.entries[name][0], f"{where}.{name}", text)


CONFIG: dict[str, Property] = {
    "backends": Property(
        ListForm(
            _BackendForm("a mapping", BACKEND, lambda read: Backend(**read)),
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
    default: int | None = None
    for item in node.items if isinstance(node, Sequence) else ():
        name = item.get("name") if isinstance(item, Mapping) else None
        if isinstance(name, Scalar):
            if name.text in seen:
                reader.problem(name, "backends.name", f'"{name.text}" stands here twice')
            seen.add(name.text)
        chosen = item.get("default") if isinstance(item, Mapping) else None
        if isinstance(chosen, Scalar) and chosen.text == "true":
            if default is not None:
                text = f"only one backend can be the default; the one in line {default} is"
                reader.problem(chosen, "backends.default", text)
            default = default or chosen.line
