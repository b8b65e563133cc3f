"""A run becomes the text of its job.sh. Pure: strings in, strings out."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

import msgspec

from ..config.shapes import EnvVar, Range, Secret, Text
from ..run.model import Plan, Run


class Places(msgspec.Struct, frozen=True):
    """Where things lie on the host; absolute paths. `uv` may be empty."""

    run: str
    job: str
    cache: str
    envs: str
    uv: str


# bash refuses an assignment to these, which would end a shell that is bash.
_READONLY = frozenset({"UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO"})

# Where Linux has its control groups, cgroups(7).
CGROUPS = "/sys/fs/cgroup"

_PHASE_WIDTH = 20


def render(run: Run, attempt: int, places: Places, body: str) -> tuple[str, tuple[str, ...]]:
    """The whole job.sh, and the names of the values (`secret:NAME`, `env:NAME`) that it needs."""
    plan = run.plan
    needs = needed(plan.env)
    parts = [
        "#!/bin/sh",
        f"# Attempt {attempt} of the run {run.name} ({run.id}).",
        "",
        *_shells(plan, places),
        "",
        *_job(run, attempt, places),
        "",
        *_environment(run, attempt, places, needs),
        "",
        *_caches(plan, places),
        "",
        body.rstrip("\n"),
        "",
    ]
    return "\n".join(parts), needs


def needed(env: Sequence[EnvVar]) -> tuple[str, ...]:
    """Which values the environment needs from `start`, each once, in the order written."""
    needs: dict[str, None] = {}
    for variable in env:
        if variable.value is None:
            needs[f"env:{variable.name}"] = None
            continue
        for part in variable.value:
            if isinstance(part, Secret):
                needs[f"secret:{part.name}"] = None
    return tuple(needs)


def values_file(needs: Sequence[str], values: Sequence[str]) -> str:
    """The `env` file: one assignment for each of `needs`, in that order."""
    lines = [f"__dstack_v{n}={quote(value)}\n" for n, value in enumerate(values, 1)]
    assert len(needs) == len(lines)  # noqa: S101 - a programming error, not input
    return "".join(lines)


def quote(text: str) -> str:
    """A literal for a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def phase(stage: str, index: int) -> str:
    """What the file `phase` says, always of the same width so that it is written in place."""
    return f"{stage} {index}".ljust(_PHASE_WIDTH)


def _shells(plan: Plan, places: Places) -> list[str]:
    lines = [
        "# What the run's shells execute. The number of the item goes to `phase` first; nothing",
        "# stands around an item, so that `set -e`, traps and `exec` work as in any script.",
        'case "${1-}" in',
        f"setup | commands) __dstack_phase={quote(places.job + '/phase')} ;;",
        "esac",
        'case "${1-}" in',
    ]
    for stage, items in (("setup", plan.setup), ("commands", plan.commands)):
        if not items:
            continue
        lines += [f"{stage})", "set --"]
        for index, item in enumerate(items, 1):
            lines += [
                "",
                f'echo {quote(phase(stage, index))} 1<>"$__dstack_phase" || :',
                f"eval {quote(item)}",
                "case $? in 0) ;; *) exit ;; esac",
            ]
        lines += ["", "exit 0", ";;"]
    return [*lines, "esac"]


def _job(run: Run, attempt: int, places: Places) -> list[str]:
    plan = run.plan
    code = posixpath.normpath(f"{places.run}/code/{plan.workdir}")
    values = {
        "job_name": f"{run.id}-{attempt}",
        "job_folder": places.job,
        "job_code": code,
        "job_env": f"{places.run}/env",
        "job_envs": places.envs,
        "job_python": plan.python or "",
        "job_interpreter": plan.interpreter or "",
        "job_uv": places.uv,
        "job_setup": "yes" if plan.setup else "",
        "job_max_duration": str(plan.max_duration) if plan.max_duration else "",
        "job_memory": _most(plan.resources.memory, 1) if plan.enforce else "",
        "job_cpu": _most(plan.resources.cpu, 1000) if plan.enforce else "",
        "job_cgroup_root": CGROUPS,
    }
    return [f"{name}={quote(value)}" for name, value in values.items()]


def _most(asked: Range | None, unit: int) -> str:
    if asked is None or asked.most is None:
        return ""
    return str(max(1, int(asked.most * unit)))


def _environment(run: Run, attempt: int, places: Places, needs: tuple[str, ...]) -> list[str]:
    plan = run.plan
    lines = ["job_environment() {"]
    lines += [f"    export {name}={quote(value)}" for name, value in plan.base_env]
    if plan.python:
        lines += [
            '    export VIRTUAL_ENV="$job_env"',
            '    export PATH="$job_env/bin:$PATH"',
        ]
    own = {
        "DSTACK_RUN_NAME": run.name,
        "DSTACK_RUN_ID": run.id,
        "DSTACK_ATTEMPT": str(attempt),
        "DSTACK_WORKING_DIR": posixpath.normpath(f"{places.run}/code/{plan.workdir}"),
        "PYTHONUNBUFFERED": "1",
    }
    lines += [f"    export {name}={quote(value)}" for name, value in own.items()]
    if needs:
        file = quote(f"{places.job}/env")
        lines += [f"    . {file}", f"    rm -f {file}"]
    lines += [_export(variable, needs) for variable in plan.env]
    if needs:
        names = " ".join(f"__dstack_v{n}" for n in range(1, len(needs) + 1))
        lines += [f"    unset {names}"]
    return [*lines, "}"]


def _export(variable: EnvVar, needs: tuple[str, ...]) -> str:
    name = variable.name
    words = []
    if variable.value is None:
        words.append(_value(needs, f"env:{name}"))
    for part in variable.value or ():
        if isinstance(part, Text):
            words.append(quote(part.text))
        elif isinstance(part, Secret):
            words.append(_value(needs, f"secret:{part.name}"))
        else:
            words.append(f'"${{{part.name}-}}"')
    value = "".join(words) or "''"
    if name in _READONLY:
        return f"    command export {name}={value} 2>/dev/null || :"
    return f"    export {name}={value}"


def _value(needs: tuple[str, ...], name: str) -> str:
    return f'"${{__dstack_v{needs.index(name) + 1}}}"'


def _caches(plan: Plan, places: Places) -> list[str]:
    lines = ["job_cache() {"]
    home = dict(plan.base_env).get("HOME")
    start = quote(home) if home else '"$HOME"'
    for item in plan.cache:
        path = posixpath.normpath(item)
        if path == "~" or path.startswith("~/"):
            lines.append(f"    \"$1\" {start}{quote(path[1:])} ''")
        elif path.startswith("/"):
            lines.append(f"    \"$1\" {quote(path)} ''")
        else:
            kept = f"{places.cache}/{plan.cache_key}/{path.replace('%', '%25').replace('/', '%2F')}"
            seen = posixpath.normpath(f"{places.run}/code/{plan.workdir}/{path}")
            lines.append(f'    "$1" {quote(kept)} {quote(seen)}')
    return [*lines, "    :", "}"]
