"""From a command line to a plan: finds the files, reads them, asks what the backend offers."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..config.load import Context, find_task_file, load_profiles, load_task, read_file
from ..config.settings import resolve
from ..config.shapes import EnvVar, Port, Secret, Settings, Task
from ..engines.base import Engine
from ..errors import CannotStart, DstackError, HostError, UsageError
from ..paths import Home
from ..run.model import Plan
from ..run.plan import Offer, Place, make_plan
from ..store.parsed import ParsedFiles
from ..store.secrets import Vault
from .overrides import env_of, name_of, ports_of, settings_of
from .places import candidates
from .project import PROFILES, cache_key

if TYPE_CHECKING:
    from ..config.backends import Backend
    from ..engines.choice import Choice
    from ..snapshot import Snapshots
    from ..supervise.sites import Sites

# Seconds that the first of several backends has to answer before the others are connected to, too.
_FIRST = 1.0
# What a run gets of the submitting shell; docs/guide/environment.md lists them.
_BASE = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR")


def base_env() -> dict[str, str]:
    """The part of this shell's environment that every run has."""
    keep = {name: os.environ[name] for name in _BASE if name in os.environ}
    keep.update({k: v for k, v in os.environ.items() if k.startswith("LC_")})
    return keep


class Request:
    """What was asked for, and everything that was found for it."""

    def __init__(
        self,
        home: Home,
        vault: Vault,
        sites: Sites,
        snapshots: Snapshots,
        args: argparse.Namespace,
        rest: tuple[str, ...],
        project: tuple[Path, str],
    ) -> None:
        self.home = home
        self.vault = vault
        self.sites = sites
        self.snapshots = snapshots
        self.args = args
        self.rest = rest
        self.root, self.workdir = project
        self.file = find_task_file(self.root / self.workdir, args.file, Path.cwd())
        self.settings = settings_of(args)
        self.env = env_of(args)
        self.ports = ports_of(args)
        self.name = name_of(args)
        self.named = self.name is not None
        # A dry run leaves nothing behind.
        self.memory = None if getattr(args, "dry_run", False) else ParsedFiles(home)

    def load(self, fallback_name: str) -> Task:
        """The task, with the command line's `-e` and `-p` added. Raises FileErrors."""
        source = read_file(self.file, _shown(self.file))
        secrets = frozenset(self.vault.names())
        context = Context(
            name=self.name,
            fallback_name=fallback_name,
            args=self.rest,
            secrets=secrets,
            check_args=True,
        )
        task = load_task(source, _shown(self.file), context, self.memory)
        self.named = task.name != fallback_name
        return msgspec.structs.replace(
            task, env=merged_env(task.env, self.env), ports=_with(task.ports, self.ports)
        )

    def profile(self) -> Settings | None:
        """The profile that is named or the default. Raises UsageError, FileErrors."""
        for name in PROFILES:
            path = self.root / name
            if path.is_file():
                profiles = load_profiles(read_file(path, _shown(path)), _shown(path), self.memory)
                found = profiles.pick(self.args.profile)
                return found[1] if found else None
        if self.args.profile is not None:
            message = f"there is no profile {self.args.profile}: {self.root} has no {PROFILES[0]}"
            raise UsageError(message)
        return None

    def plan(self, fallback_name: str) -> tuple[Plan, Engine]:
        """The plan, and the engine that it is for. Raises CannotStart, UsageError.

        Of several backends it is the first that can.
        """
        task = self.load(fallback_name)
        settings = resolve(self.settings, task.settings, self.profile())
        problems: list[tuple[str, DstackError]] = []
        backends = candidates(settings.backends or (), self.home, self.memory)
        for n, backend in enumerate(backends):
            others = backends[n + 1 :]
            if n or others:
                self.sites.begin([backend])
                if not self.sites.settled(backend, _FIRST):
                    # Of several that do not answer none shall wait for the others' time-outs.
                    self.sites.begin(others)
            try:
                found = self._plan_on(backend, task, settings)
            except (CannotStart, HostError) as problem:
                problems.append((backend.name, problem))
            else:
                self.sites.leave(others)
                return found
        (name, first), *more = problems
        if more:
            why = "; ".join(f"{name}: {problem.message}" for name, problem in problems)
            raise CannotStart(f"no backend can run it: {why}")
        if isinstance(first, HostError):
            raise CannotStart(f"backend {name}: {first.message}", hint=first.hint) from None
        raise first

    def _plan_on(self, backend: Backend, task: Task, settings: Settings) -> tuple[Plan, Engine]:
        from ..engines.choice import choose_engine

        site = self.sites.reach(backend)
        site.foresee(self.snapshots, self.root, gpus=_asks_for_limits(settings))
        host = site.host()
        choice = choose_engine(backend, image=task.image is not None, host=host)
        engine = site.engine(choice.engine)
        offer = _offer(backend, choice, engine, settings)
        place = Place(
            project=str(self.root),
            workdir=self.workdir,
            file=self._relative_file(),
            cache_key=cache_key(self.root, self._relative_file()),
            # Another machine's own is in what the run is started from.
            base_env={**(base_env() if host is None else {}), **choice.environment},
        )
        where = "this machine" if host is None else backend.name
        python = _python_for(task, choice, engine, where)
        plan = make_plan(task, settings, place, offer, python)
        if site.remote is not None:
            plan = msgspec.structs.replace(plan, remote=site.remote)
        return plan, engine

    def _relative_file(self) -> str:
        try:
            return str(self.file.relative_to(self.root))
        except ValueError:
            return str(self.file)


def sensitive(plan: Plan) -> tuple[list[str], list[str]]:
    """Names of the secrets and of the submitting shell's variables that a plan takes."""
    secrets = [
        part.name for var in plan.env for part in var.value or () if isinstance(part, Secret)
    ]
    auth = plan.registry_auth
    if auth is not None:
        parts = (*auth.username, *auth.password)
        secrets += [part.name for part in parts if isinstance(part, Secret)]
    return secrets, [var.name for var in plan.env if var.value is None]


def taken_values(plan: Plan) -> dict[str, str]:
    """This shell's values of the variables that are given by name. Raises UsageError."""
    names = sensitive(plan)[1]
    missing = [name for name in names if name not in os.environ]
    if missing:
        noun = "variable" if len(missing) == 1 else "variables"
        message = f"the environment {noun} {', '.join(missing)} must be set in this shell"
        hint = f"export {missing[0]}=… or give it a value: -e {missing[0]}=VALUE"
        raise UsageError(message, hint=hint)
    return {name: os.environ[name] for name in names}


def _shown(path: Path) -> str:
    """A path as the user would type it from where they stand."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def merged_env(file: tuple[EnvVar, ...], line: tuple[EnvVar, ...]) -> tuple[EnvVar, ...]:
    """The command line's variables win, in the order written there.

    One that the file has, too, comes where that has it, so that others of the file mean it; before
    it those that stand before it on the command line, whose values it may mean.
    """
    left = list(line)
    merged: list[EnvVar] = []
    for var in file:
        places = [n for n, each in enumerate(left, 1) if each.name == var.name]
        if places:
            merged += left[: places[-1]]
            del left[: places[-1]]
        elif all(each.name != var.name for each in line):
            merged.append(var)
    return (*merged, *left)


def _with(file: tuple[Port, ...], line: tuple[Port, ...]) -> tuple[Port, ...]:
    """The command line's ports replace the file's of the same number. Raises UsageError."""
    seen: set[int] = set()
    for port in line:
        if port.run in seen:
            message = f"-p: port {port.run} is given twice"
            raise UsageError(message)
        seen.add(port.run)
    return (*(port for port in file if port.run not in seen), *line)


def _asks_for_limits(settings: Settings) -> bool:
    asked = settings.resources
    return any((asked.cpu, asked.memory, asked.gpu))


def _offer(backend: Backend, choice: Choice, engine: Engine, settings: Settings) -> Offer:
    facts = engine.facts(limits=_asks_for_limits(settings))
    return Offer(
        backend=backend.name,
        engine=engine.name,
        cpus=facts.cpus,
        memory=facts.memory,
        disk=facts.disk,
        gpus=tuple((gpu.number, gpu.name, gpu.memory) for gpu in facts.gpus),
        gpus_why=facts.gpus_why,
        limits=facts.limits,
        limits_why=facts.limits_why,
        client=choice.client,
        base_image=backend.base_image,
    )


def _python_for(task: Task, choice: Choice, engine: Engine, where: str) -> tuple[str, str | None]:
    if task.image is not None:
        return "", None
    if choice.engine != "process":
        return task.python or _own_version(), None
    return _python(engine, task.python, where)


def _own_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _python(engine: Engine, version: str | None, where: str) -> tuple[str, str | None]:
    """The version, and an interpreter that has it (None: it is fetched when the run starts)."""
    mine = _own_version()
    wanted = version or mine
    if where == "this machine" and wanted == mine:
        # In a virtual environment sys.executable is a link that goes with it.
        return mine, str(getattr(sys, "_base_executable", None) or sys.executable)
    facts = engine.facts(pythons=True)
    if wanted in facts.pythons:
        return wanted, facts.pythons[wanted]
    if facts.fetch:
        return wanted, None
    there = ", ".join(sorted(facts.pythons, key=_by_number)) or "none"
    message = f"Python {wanted} is not on {where}, and may not be downloaded (there: {there})"
    raise CannotStart(message, hint="install it, or choose one that is there")


def _by_number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
