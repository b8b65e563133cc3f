"""`dstack backend`: what runs can be put on, what each offers, and whether it answers."""

from __future__ import annotations

import argparse

import msgspec

from .. import text
from ..config.backends import Backend, load_backends
from ..engines import get_engine
from ..engines.base import Facts
from ..errors import DstackError, StoreError
from ..paths import Home, find_home

HELP = "show what runs can be put on"


class Engine(msgspec.Struct, frozen=True):
    """What a container engine said: its `version`, or why there is none."""

    name: str
    version: str | None = None
    error: str | None = None
    hint: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a backend said: `facts`, or why there are none."""

    backend: Backend
    facts: Facts | None = None
    error: str | None = None
    hint: str | None = None
    engines: tuple[Engine, ...] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """What can be typed after `dstack backend`."""
    parser.add_argument(
        "action",
        metavar="check",
        nargs="?",
        choices=("check",),
        help="only whether each answers; exit code 1 when one does not",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON array")


def run(args: argparse.Namespace) -> int:
    """Ask every backend and print what it says. Raises FileErrors, StoreError."""
    home = find_home()
    full = args.action is None
    answers = [ask(backend, home, full=full) for backend in read_backends(home)]
    if args.json:
        found = msgspec.json.encode([as_json(answer, full=full) for answer in answers])
        text.show(msgspec.json.format(found).decode())
    elif full:
        text.show("\n\n".join(map(details, answers)))
    else:
        text.show("\n".join(map(_checked, answers)))
    for answer in answers if args.action == "check" else ():
        if answer.error is not None:
            text.error(f"backend {answer.backend.name} does not answer", answer.hint)
    return int(not full and any(answer.error is not None for answer in answers))


def read_backends(home: Home) -> tuple[Backend, ...]:
    """The backends of `config.yml`. Raises FileErrors, StoreError when it cannot be read."""
    try:
        source = home.config.read_bytes()
    except FileNotFoundError:
        source = None
    except OSError as error:
        raise StoreError(f"cannot read {home.config}: {error.strerror}") from None
    return load_backends(source, str(home.config))


def ask(backend: Backend, home: Home, *, full: bool) -> Answer:
    """What a backend offers; `full` looks for interpreters and limits, too, which takes longer."""
    found = ask_engines(backend)
    broken = [each for each in found if each.error is not None and each.name == backend.engine]
    if broken:
        return Answer(backend, error=broken[0].error, hint=broken[0].hint, engines=found)
    try:
        facts = get_engine("process", home).facts(pythons=full, limits=full)
    except DstackError as error:
        return Answer(backend, error=error.message, hint=error.hint, engines=found)
    return Answer(backend, facts, engines=found)


def ask_engines(backend: Backend) -> tuple[Engine, ...]:
    """What the container engines answer that the backend may use."""
    if backend.engine == "process":
        return ()
    from ..engines.choice import version_of
    from ..engines.clients import CLIENTS
    from ..hosts.local import LocalHost

    found = []
    for client in CLIENTS.values():
        if backend.engine not in ("auto", client.name):
            continue
        path = LocalHost().commands([client.name]).get(client.name)
        if path is None:
            error = f"{client.product} is not installed"
            found.append(Engine(client.name, error=error, hint=f"see {client.install}"))
            continue
        try:
            found.append(Engine(client.name, version_of(client, path, LocalHost())))
        except DstackError as problem:
            error = f"{client.product} does not answer: {problem.message}"
            found.append(Engine(client.name, error=error, hint="is its service running?"))
    return tuple(found)


def as_json(answer: Answer, *, full: bool) -> dict[str, object]:
    """The fields of `backend --json`; `memory` and `disk` are bytes."""
    shown: dict[str, object] = {
        "name": answer.backend.name,
        "type": answer.backend.type,
        "answers": answer.error is None,
        "error": answer.error,
        "engines": [
            {"name": each.name, "version": each.version, "error": each.error}
            for each in answer.engines
        ],
    }
    facts = answer.facts
    if facts is not None and full:
        shown |= {
            "cpus": facts.cpus,
            "memory": facts.memory,
            "disk": facts.disk,
            "gpus": [{"name": gpu.name, "memory": gpu.memory} for gpu in facts.gpus],
            "pythons": dict(facts.pythons),
            "python_download": facts.fetch,
            "limits": facts.limits,
            "limits_why": facts.limits_why,
            "container_engine": next((e.name for e in answer.engines if e.version), None),
        }
    return shown


def _headline(answer: Answer) -> str:
    state = "answers" if answer.error is None else f"does not answer: {answer.error}"
    return text.plain(f"{answer.backend.name}  {state}")


def _checked(answer: Answer) -> str:
    lines = [f"  {name:<12}{text.plain(value)}" for name, value in _engines(answer)]
    return "\n".join([_headline(answer), *lines])


def _engines(answer: Answer) -> list[tuple[str, str]]:
    if answer.backend.engine == "process":
        return [("containers", "none: its engine is process")]
    return [(each.name, each.version or str(each.error)) for each in answer.engines]


def details(answer: Answer) -> str:
    """A backend for people: a line that names it, and one for each thing that it offers."""
    lines = [_headline(answer)]
    if answer.facts is not None:
        lines += [f"  {name:<12}{text.plain(value)}" for name, value in _offers(answer.facts)]
    lines += [f"  {name:<12}{text.plain(value)}" for name, value in _engines(answer)]
    return "\n".join(lines)


def _offers(facts: Facts) -> list[tuple[str, str]]:
    gpus = ", ".join(f"{gpu.name} {text.size(gpu.memory)}" for gpu in facts.gpus)
    pythons = ", ".join(facts.pythons)
    if facts.fetch:
        pythons += f"{'; ' if pythons else ''}others are downloaded"
    return [
        ("cpus", f"{facts.cpus:g}"),
        ("memory", text.size(facts.memory)),
        ("disk", f"{text.size(facts.disk)} free"),
        ("gpus", gpus or "none"),
        ("python", pythons or "none"),
        ("limits", "cpu and memory" if facts.limits else f"not enforced: {facts.limits_why}"),
    ]
