"""A run becomes the text of its job.sh. Pure: strings in, strings out."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

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
    builds: str = ""
    guard: str = ""
    gpus: str = ""

    def code(self, plan: Plan) -> str:
        """The folder in which the commands run."""
        return posixpath.normpath(f"{self.run}/code/{plan.workdir}")


# bash refuses an assignment to these, which would end a shell that is bash.
_READONLY = frozenset({"UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO"})

# Where Linux has its control groups, cgroups(7).
CGROUPS = "/sys/fs/cgroup"

_PHASE_WIDTH = 20


def render(run: Run, attempt: int, places: Places, body: str) -> tuple[str, tuple[str, ...]]:
    """The whole job.sh, and the names of the values (`secret:NAME`, `env:NAME`) that it needs."""
    plan = run.plan
    needs = needed(plan.env)
    own = own_variables(run, attempt, places.code(plan))
    if plan.python:
        paths = [
            '    export VIRTUAL_ENV="$job_env"',
            '    export PATH="$job_env/bin:$PATH"',
        ]
    else:
        paths = []
    base = [f"    export {name}={quote(value)}" for name, value in plan.base_env]
    script = join(
        [f"# Attempt {attempt} of the run {run.name} ({run.id})."],
        shells(plan, f"{places.job}/phase"),
        _job(run, attempt, places),
        environment(plan, [*base, *paths], own, f"{places.job}/env"),
        _caches(plan, places),
        [body.rstrip("\n")],
    )
    return script, needs


def join(*parts: Sequence[str]) -> str:
    """A script of these parts, an empty line between any two."""
    return "#!/bin/sh\n" + "\n\n".join("\n".join(part) for part in parts) + "\n"


def assignments(values: Mapping[str, str]) -> list[str]:
    """A line for each variable."""
    return [f"{name}={quote(value)}" for name, value in values.items()]


def own_variables(run: Run, attempt: int, code: str) -> dict[str, str]:
    """The environment that every run has of dstack; `code` is the folder the commands run in."""
    return {
        "DSTACK_RUN_NAME": run.name,
        "DSTACK_RUN_ID": run.id,
        "DSTACK_ATTEMPT": str(attempt),
        "DSTACK_WORKING_DIR": code,
        "PYTHONUNBUFFERED": "1",
    }


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


def shells(plan: Plan, phase_file: str) -> list[str]:
    """What the run's shells execute: `setup` and `commands`."""
    lines = [
        "# What the run's shells execute. The number of the item goes to `phase` first; nothing",
        "# stands around an item, so that `set -e`, traps and `exec` work as in any script.",
        'case "${1-}" in',
        f"setup | commands) __dstack_phase={quote(phase_file)} ;;",
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
    values = {
        "job_name": f"{run.id}-{attempt}",
        "job_folder": places.job,
        "job_phase": f"{places.job}/phase",
        "job_code": places.code(plan),
        "job_env": f"{places.run}/env",
        "job_envs": places.envs,
        "job_python": plan.python or "",
        "job_interpreter": plan.interpreter or "",
        "job_uv": places.uv,
        "job_setup": "yes" if plan.setup else "",
        "job_max_duration": str(plan.max_duration) if plan.max_duration else "",
        "job_guard": places.guard,
        "job_memory": _most(plan.resources.memory, 1) if plan.enforce else "",
        "job_cpu": _most(plan.resources.cpu, 1000) if plan.enforce else "",
        "job_cgroup_root": CGROUPS,
    }
    return assignments({**values, **gpu_values(plan, places), **build_values(run, places)})


def gpu_values(plan: Plan, places: Places) -> dict[str, str]:
    """What gpus.sh is told: nothing for a run that asks for none."""
    if not plan.gpus:
        return {}
    least, most = plan.gpu_count or (len(plan.gpus), len(plan.gpus))
    return {
        "job_gpus": " ".join(map(str, plan.gpus)),
        "job_gpus_least": str(least),
        "job_gpus_most": str(most),
        "job_gpu_folder": places.gpus,
    }


def build_values(run: Run, places: Places) -> dict[str, str]:
    """What build.sh is told: nothing for a run that neither makes a build nor starts from one."""
    code = f"{places.run}/code"
    if run.plan.stage == "build":
        return {"job_build": "yes", "job_folder_code": code}
    if run.build is None:
        return {}
    old = posixpath.join(posixpath.dirname(places.run), run.build)
    return {
        "job_run": places.run,
        "job_folder_code": code,
        "job_build_from": f"{places.builds}/{run.build}",
        "job_build_old": old,
        "job_build_rename": f"s|{_pattern(old)}/|{_replacement(places.run)}/|g",
    }


def _pattern(text: str) -> str:
    return "".join(f"\\{char}" if char in "\\[]*.^$|" else char for char in text)


def _replacement(text: str) -> str:
    return "".join(f"\\{char}" if char in "\\&|" else char for char in text)


def _most(asked: Range | None, unit: int) -> str:
    if asked is None or asked.most is None:
        return ""
    return str(max(1, int(asked.most * unit)))


def environment(plan: Plan, first: Sequence[str], own: Mapping[str, str], values: str) -> list[str]:
    """The function that exports the run's environment: `first`, then ours, then the user's.

    `values` is the path of the file with the values that are no part of the script.
    """
    needs = needed(plan.env)
    lines = ["job_environment() {", *first]
    lines += [f"    export {name}={quote(value)}" for name, value in own.items()]
    if needs:
        lines += [f"    . {quote(values)}", f"    rm -f {quote(values)}"]
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
