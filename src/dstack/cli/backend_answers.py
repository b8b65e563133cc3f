"""What backends say of themselves, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .. import text
from ..config.backends import Backend
from ..engines.base import Facts
from ..engines.choice import version_of
from ..engines.clients import CLIENTS
from ..errors import DstackError
from ..hosts.base import Host
from ..hosts.local import LocalHost
from ..paths import Home
from ..supervise.sites import Sites

_TIMEOUT = 20.0
_TOOLS = ("tar", "git")


class Engine(msgspec.Struct, frozen=True):
    """What a container engine said: its `version`, or why there is none."""

    name: str
    version: str | None = None
    error: str | None = None
    hint: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a backend said: `facts`, or why there are none. `tools` are command -> version."""

    backend: Backend
    facts: Facts | None = None
    error: str | None = None
    hint: str | None = None
    engines: tuple[Engine, ...] = ()
    tools: dict[str, str] = {}


def ask_all(backends: Sequence[Backend], home: Home) -> list[Answer]:
    """What each offers."""
    sites = Sites(home)
    try:
        return [_ask(backend, sites, home) for backend in backends]
    finally:
        sites.close()


def _ask(backend: Backend, sites: Sites, home: Home) -> Answer:
    try:
        # A machine without sh or tar is an error already.
        site = sites.reach(backend)
        host = site.host() or LocalHost(home.root)
        found = _ask_engines(backend, host)
        broken = [each for each in found if each.error is not None and each.name == backend.engine]
        if broken:
            return Answer(backend, error=broken[0].error, hint=broken[0].hint, engines=found)
        tools = _ask_tools(host)
        facts = site.engine("process").facts(pythons=True, limits=True)
    except DstackError as error:
        return Answer(backend, error=error.message, hint=error.hint)
    return Answer(backend, facts, engines=found, tools=tools)


def _ask_engines(backend: Backend, host: Host) -> tuple[Engine, ...]:
    """What the container engines answer that the backend may use."""
    if backend.engine == "process":
        return ()
    wanted = [each for each in CLIENTS.values() if backend.engine in ("auto", each.name)]
    paths = host.commands([each.name for each in wanted])
    found = []
    for client in wanted:
        path = paths.get(client.name)
        if path is None:
            error = f"{client.product} is not installed"
            found.append(Engine(client.name, error=error, hint=f"see {client.install}"))
            continue
        try:
            found.append(Engine(client.name, version_of(client, path, host)))
        except DstackError as problem:
            error = f"{client.product} does not answer: {problem.message}"
            found.append(Engine(client.name, error=error, hint="is its service running?"))
    return tuple(found)


def _ask_tools(host: Host) -> dict[str, str]:
    """Versions of what dstack itself uses there; uv only where it is there already."""
    paths = dict(host.commands(_TOOLS))
    uv = host.find_uv()
    if uv is not None:
        paths["uv"] = uv
    versions = {}
    for name, path in paths.items():
        done = host.run([path, "--version"], timeout=_TIMEOUT)
        said = done.out.decode("utf-8", "replace").splitlines()
        number = next((word for word in (said[0].split() if said else ()) if word[0].isdigit()), "")
        versions[name] = number.strip("(),") or "there"
    return versions


def as_fields(answer: Answer) -> dict[str, object]:
    """The fields of `backend --json`; `memory` and `disk` are bytes."""
    shown: dict[str, object] = {
        "name": answer.backend.name,
        "type": answer.backend.type,
        "host": answer.backend.host or None,
        "answers": answer.error is None,
        "error": answer.error,
        "engines": [
            {"name": each.name, "version": each.version, "error": each.error}
            for each in answer.engines
        ],
    }
    facts = answer.facts
    if facts is not None:
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
            "tools": answer.tools,
        }
    return shown


def details(answer: Answer) -> str:
    """A backend for people: a line that names it, and one for each thing that it offers."""
    state = "answers" if answer.error is None else f"does not answer: {answer.error}"
    where = f" ({answer.backend.host})" if answer.backend.host else ""
    lines = [("", text.plain(f"{answer.backend.name}{where}  {state}"))]
    if answer.facts is not None:
        lines += _offers(answer.facts) + _tools(answer)
    if answer.backend.engine == "process":
        lines.append(("containers", "none: its engine is process"))
    lines += [(each.name, each.version or str(each.error)) for each in answer.engines]
    return "\n".join(f"  {name:<12}{text.plain(said)}" if name else said for name, said in lines)


def _offers(facts: Facts) -> list[tuple[str, str]]:
    gpus = ", ".join(
        f"{gpu.name} {text.size(gpu.memory)}" if gpu.memory else f"{gpu.name} of unknown memory"
        for gpu in facts.gpus
    )
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


def _tools(answer: Answer) -> list[tuple[str, str]]:
    """What makes things possible or quicker on another machine; here it came with dstack."""
    if answer.backend.type == "local":
        return []
    return [
        ("uv", answer.tools.get("uv", "none: it is copied there when a run needs it")),
        ("git", answer.tools.get("git", "none: only commands of yours may need it")),
    ]
