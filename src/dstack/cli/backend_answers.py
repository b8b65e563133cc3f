"""What backends say of themselves, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import Queue
from threading import Thread

import msgspec

from .. import text
from ..config.backends import Backend
from ..engines.base import Facts
from ..engines.choice import version_of
from ..engines.clients import CLIENTS
from ..engines.gpus import leases
from ..errors import DstackError, HostRefused
from ..hosts.base import Host
from ..hosts.local import LocalHost
from ..hosts.ssh_master import can_ask
from ..paths import Home
from ..supervise.sites import Sites

_TIMEOUT = 20.0
_TOOLS = ("tar", "git")
_NOTABLE = 16 << 20


class Engine(msgspec.Struct, frozen=True):
    """What a container engine said: its `version`, or why there is none."""

    name: str
    version: str | None = None
    error: str | None = None
    hint: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a backend said: `facts`, or why there are none. `tools` are command -> version.

    `leased` is GPU -> the run that has it: its name, or its id where it came from elsewhere.
    `asks`: it takes somebody who types something, as in HostRefused.
    """

    backend: Backend
    facts: Facts | None = None
    error: str | None = None
    hint: str | None = None
    engines: tuple[Engine, ...] = ()
    tools: dict[str, str] = {}
    leased: dict[int, str] = {}
    asks: bool = False


def ask_all(backends: Sequence[Backend], home: Home) -> Iterator[Answer]:
    """What each offers, in their order, each as soon as it is known.

    All are asked at once. Where somebody has to type something, that is asked one by one.
    """
    if len(backends) == 1:
        yield _ask(backends[0], home)
        return
    answers: list[Queue[Answer]] = [Queue() for _ in backends]
    for backend, place in zip(backends, answers, strict=True):
        # Not waited for when the command is interrupted: none of them leaves anything undone.
        Thread(target=_put_answer, args=(backend, home, place), daemon=True).start()
    for backend, place in zip(backends, answers, strict=True):
        answer = place.get()
        yield _ask(backend, home) if answer.asks and can_ask() else answer


def _put_answer(backend: Backend, home: Home, place: Queue[Answer]) -> None:
    try:
        place.put(_ask(backend, home, alone=False))
    except Exception as error:  # whatever it is, who waits must be told
        place.put(Answer(backend, error=f"{type(error).__name__}: {error}"))


def _ask(backend: Backend, home: Home, *, alone: bool = True) -> Answer:
    """`alone`: no other is asked at the same time, so that ssh may ask a person."""
    sites = Sites(home)
    if not alone:
        sites.ask_nobody()
    try:
        return _ask_site(backend, sites, home)
    except HostRefused as error:
        return Answer(backend, error=error.message, hint=error.hint, asks=error.asks)
    except DstackError as error:
        return Answer(backend, error=error.message, hint=error.hint)
    finally:
        sites.close()


def _ask_site(backend: Backend, sites: Sites, home: Home) -> Answer:
    # A machine without sh or tar is an error already.
    site = sites.reach(backend)
    host = site.host() or LocalHost(home.root)
    found = _ask_engines(backend, host)
    broken = [each for each in found if each.error is not None and each.name == backend.engine]
    if broken:
        return Answer(backend, error=broken[0].error, hint=broken[0].hint, engines=found)
    tools = _ask_tools(host)
    facts = site.engine("process").facts(pythons=True, limits=True)
    leased = _names(home, leases(host, site.home)) if facts.gpus else {}
    return Answer(backend, facts, engines=found, tools=tools, leased=leased)


def _names(home: Home, jobs: dict[int, str]) -> dict[int, str]:
    """The runs of jobs (RUN-ATTEMPT), by the names that they have here."""
    known = _known(home) if jobs else {}
    ids = {gpu: job.rpartition("-")[0] for gpu, job in jobs.items()}
    return {gpu: known.get(run_id, run_id) for gpu, run_id in ids.items()}


def _known(home: Home) -> dict[str, str]:
    from ..store.database import Database
    from ..store.runs import Runs

    if not home.database.exists():
        return {}
    return {stored.run.id: stored.run.name for stored in Runs(Database(home)).active()}


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
            "gpus": [
                {
                    "number": gpu.number,
                    "uuid": gpu.uuid,
                    "name": gpu.name,
                    "memory": gpu.memory,
                    "memory_used": gpu.used,
                    "run": answer.leased.get(gpu.number),
                }
                for gpu in facts.gpus
            ],
            "gpus_why": facts.gpus_why,
            "pythons": dict(facts.pythons),
            "python_download": facts.fetch,
            "limits": facts.limits,
            "limits_why": facts.limits_why,
            "container_engine": next((e.name for e in answer.engines if e.version), None),
            "tools": answer.tools,
        }
    return shown


def problem(answer: Answer) -> str:
    """What follows the name of a backend that cannot be used."""
    said = str(answer.error)
    # What a host says names it, and it may well have answered.
    host = answer.backend.host
    return f": {said}" if host and said.startswith(f"{host} ") else f" does not answer: {said}"


def details(answer: Answer) -> str:
    """A backend for people: a line that names it, and one for each thing that it offers."""
    state = "answers" if answer.error is None else problem(answer).lstrip(": ")
    where = f" ({answer.backend.host})" if answer.backend.host else ""
    lines = [("", text.plain(f"{answer.backend.name}{where}  {state}"))]
    if answer.facts is not None:
        lines += _offers(answer) + _tools(answer)
    if answer.backend.engine == "process":
        lines.append(("containers", "none: its engine is process"))
    lines += [(each.name, each.version or str(each.error)) for each in answer.engines]
    return "\n".join(f"  {name:<12}{text.plain(said)}" if name else said for name, said in lines)


def _offers(answer: Answer) -> list[tuple[str, str]]:
    facts = answer.facts
    assert facts is not None  # noqa: S101 - the caller looks
    pythons = ", ".join(facts.pythons)
    if facts.fetch:
        pythons += f"{'; ' if pythons else ''}others are downloaded"
    return [
        ("cpus", f"{facts.cpus:g}"),
        ("memory", text.size(facts.memory)),
        ("disk", f"{text.size(facts.disk)} free"),
        *_gpus(facts, answer.leased),
        ("python", pythons or "none"),
        ("limits", "cpu and memory" if facts.limits else f"not enforced: {facts.limits_why}"),
    ]


def _gpus(facts: Facts, leased: dict[int, str]) -> list[tuple[str, str]]:
    """A line for each, with who uses it; and what is wrong."""
    lines = []
    for gpu in facts.gpus:
        memory = text.size(gpu.memory) if gpu.memory else "of unknown memory"
        said = f"{gpu.number}: {gpu.name} {memory}"
        # Drivers take some megabytes for themselves.
        if gpu.used is not None and gpu.used >= _NOTABLE:
            said += f", {text.size(gpu.used)} used"
        if gpu.number in leased:
            said += f", leased by {leased[gpu.number]}"
        lines.append(said)
    if facts.gpus_why is not None:
        lines.append(facts.gpus_why if lines else f"none: {facts.gpus_why}")
    first, *others = lines or ["none"]
    return [("gpus", first), *((" ", line) for line in others)]


def _tools(answer: Answer) -> list[tuple[str, str]]:
    """What makes things possible or quicker on another machine; here it came with dstack."""
    if answer.backend.type == "local":
        return []
    return [
        ("uv", answer.tools.get("uv", "none: it is copied there when a run needs it")),
        ("git", answer.tools.get("git", "none: only commands of yours may need it")),
    ]
