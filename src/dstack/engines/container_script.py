"""A run becomes the texts of its job.sh and box.sh. Pure: strings in, strings out."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

import msgspec

from ..config.shapes import Range, Secret
from ..run.model import Plan, Run
from .clients import FACTS, Client
from .render import (
    Places,
    assignments,
    build_values,
    environment,
    gpu_values,
    join,
    needed,
    own_variables,
    quote,
    shells,
)

WORK = "/workflow"  # where the container has the run's folder
BOX = "/.dstack"  # where it has box.sh and what that reads and writes

# An entrypoint with one of these in it gets the commands with what tells which one failed;
# another interpreter gets them as they are written.
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox"})
_SOURCED = f"set -- commands; . {BOX}/box.sh"


class Inside(msgspec.Struct, frozen=True):
    """What job.sh is told beyond the places: see clients.py and container.sh for their meaning."""

    client: Client
    label: str  # of the dstack folder: containers of others are not ours to touch
    images: str  # the folder for what is known of images
    body: str
    box: str


def container_name(name: str) -> str:
    """What the container of the job RUN-ATTEMPT is called."""
    return f"dstack-{name}"


def build_image(build_id: str) -> str:
    """What the image of a build is called."""
    return f"dstack-build:{build_id}"


def render_job(run: Run, attempt: int, places: Places, inside: Inside) -> str:
    """The whole job.sh, for the machine that the engine runs on."""
    plan = run.plan
    values = {
        "job_name": f"{run.id}-{attempt}",
        "job_folder": places.job,
        "job_phase": f"{places.job}/box/phase",
        "job_code": places.code(plan),
        "job_folder_code": f"{places.run}/code",
        "job_max_duration": str(plan.max_duration) if plan.max_duration else "",
        "job_guard": places.guard,
        "job_engine": inside.client.name,
        "job_box": container_name(f"{run.id}-{attempt}"),
        "job_image": plan.image or "" if run.build is None else build_image(run.build),
        "job_images": inside.images,
        "job_removal": "yes" if inside.client.removal and plan.stage == "run" else "",
        "job_pull": plan.pull if run.build is None else "",
        "job_home": plan.home_dir or "",
        "job_facts": FACTS,
        **gpu_values(plan, places),
        **build_values(run, places),
    }
    if plan.stage == "build":
        values["job_build_image"] = build_image(run.id)
    return join(
        [f"# Attempt {attempt} of the run {run.name} ({run.id}), in a container."],
        [f"export {name}={quote(value)}" for name, value in plan.base_env],
        assignments(dict(values)),
        _client(plan, inside.client),
        _container(run, places, inside),
        _direct(run, attempt, places),
        _caches(plan, places),
        [inside.body.rstrip("\n")],
    )


def render_box(run: Run, attempt: int, inside: Inside) -> str:
    """The whole box.sh, for the container."""
    plan = run.plan
    code = posixpath.normpath(f"{WORK}/{plan.workdir}")
    home = [f"    export HOME={quote(plan.home_dir)}"] if plan.home_dir else []
    values = {"job_box_code": code, "job_setup": "yes" if plan.setup else ""}
    return join(
        [f"# Attempt {attempt} of the run {run.name} ({run.id}): what the container does."],
        shells(plan, f"{BOX}/phase"),
        assignments(values),
        environment(plan, home, own_variables(run, attempt, code), f"{BOX}/env"),
        _commands(plan),
        [inside.box.rstrip("\n")],
    )


def interpreter(entrypoint: Sequence[str], commands: Sequence[str]) -> list[str]:
    """The entrypoint with the commands' script as its last argument."""
    if any(posixpath.basename(word) in _SHELLS for word in entrypoint):
        return [*entrypoint, _SOURCED]
    return [*entrypoint, "\n".join(commands)]


def keys(plan: Plan) -> tuple[str, ...]:
    """Which values the pull needs, as `Job.keys` names them."""
    auth = plan.registry_auth
    parts = (*auth.username, *auth.password) if auth is not None else ()
    return tuple(dict.fromkeys(f"secret:{p.name}" for p in parts if isinstance(p, Secret)))


def words(argv: Sequence[str]) -> str:
    """A command as one line of a shell; words that need no quotes go without."""
    return " ".join(w if w and _PLAIN.issuperset(w) else quote(w) for w in argv)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=/.:,+@")


def _commands(plan: Plan) -> list[str]:
    if plan.entrypoint is not None:
        argv = list(plan.entrypoint)
        if plan.commands:
            argv = interpreter(argv, plan.commands)
        do = f"exec {words(argv)}"
    elif plan.commands:
        do = f'exec "$shell" {BOX}/box.sh commands'
    else:
        do = "own_command"
    lines = ["job_commands() {"]
    if not plan.commands:
        lines.append(f"    echo 'commands 1          ' 1<>{BOX}/phase")
    return [*lines, f"    {do}", "}"]


def _client(plan: Plan, client: Client) -> list[str]:
    command = quote(plan.client)
    pull = "pull"
    if plan.registry_auth is not None:
        pull = " ".join(f'"{w.format("$job_folder/auth")}"' for w in client.pull)
    return [
        "# The engine's own command.",
        "job_client() {",
        f'    {command} "$@"',
        "}",
        "",
        "job_remove() {",
        f'    {command} {words(client.remove)} "$@"',
        "}",
        "",
        "job_pull_image() {",
        f'    exec {command} {pull} "$job_image"',
        "}",
    ]


def _container(run: Run, places: Places, inside: Inside) -> list[str]:
    plan = run.plan
    options = [
        "--pull never --init --sig-proxy=false --log-driver none --no-healthcheck",
        # Where SELinux is, a container could not read what we mount.
        "--security-opt label=disable",
        f"--label dstack={inside.label} --label dstack.run={run.id}",
        *([words(inside.client.run)] if inside.client.run else []),
        *_limits(plan, inside.client),
        *(f"--publish 127.0.0.1::{port.run}" for port in plan.ports),
        _mount(f"{places.run}/code", WORK),
        _mount(f"{places.job}/box", BOX),
        _mount(f"{places.job}/log", f"{BOX}/log"),
        *(_cache_mount(plan, places, item) for item in plan.cache),
        f"--workdir {quote(posixpath.normpath(f'{WORK}/{plan.workdir}'))}",
    ]
    return [
        "# The one container of this job; what stands behind the options follows.",
        "job_container() {",
        '    job_client run --name "$job_box" \\',
        *(f"        {option} \\" for option in options),
        '        "$@"',
        "}",
    ]


def _mount(source: str, target: str, home: bool = False) -> str:
    if "," in source or '"' in source or "," in target or '"' in target:
        # The value is a line of CSV.
        return "--mount " + quote(
            ",".join(
                '"' + part.replace('"', '""') + '"'
                for part in ("type=bind", f"source={source}", f"target={target}")
            )
        )
    if home:
        return f'--mount {quote(f"type=bind,source={source},target=")}"$box_home"{quote(target)}'
    return f"--mount {quote(f'type=bind,source={source},target={target}')}"


def _limits(plan: Plan, client: Client) -> list[str]:
    asked = plan.resources
    found = []
    if (cpu := _most(asked.cpu)) is not None:
        found.append(f"--cpus {cpu:g}")
    if (memory := _most(asked.memory)) is not None:
        found.append(f"--memory {int(memory)} --memory-swap {int(memory)}")
    if asked.shm_size is not None:
        found.append(f"--shm-size {asked.shm_size}")
    if plan.gpus:
        found.append(client.gpus)
    return found


def _most(asked: Range | None) -> float | None:
    return None if asked is None else asked.most


def _direct(run: Run, attempt: int, places: Places) -> list[str]:
    """For an image without a shell: its own command, or an entrypoint that the image has."""
    plan = run.plan
    can = plan.entrypoint is not None or not plan.commands
    if plan.setup or plan.stage == "build" or not can:
        return ["job_direct=", "job_names=", "job_run_direct() { :; }"]
    after = '"$job_image"'
    if plan.entrypoint is not None:
        argv = list(plan.entrypoint)
        if plan.commands:
            argv = interpreter(argv, plan.commands)
        after = f'--entrypoint {words(argv[:1])} "$job_image" {words(argv[1:])}'.rstrip()
    code = posixpath.normpath(f"{WORK}/{plan.workdir}")
    own = own_variables(run, attempt, code)
    names = [*own, *(variable.name for variable in plan.env)]
    home = []
    if plan.home_dir:
        names.append("HOME")
        home = [f"    export HOME={quote(plan.home_dir)}"]
    return [
        "job_direct=yes",
        f"job_names={quote(' '.join(dict.fromkeys(names)))}",
        *environment(plan, home, own, f"{places.job}/box/env"),
        "job_run_direct() {",
        f'    job_container --env-file "$job_folder/box/env.list" {after}',
        "}",
    ]


def _kept(plan: Plan, places: Places, path: str) -> str:
    escaped = path.replace("%", "%25").replace("/", "%2F")
    return f"{places.cache}/{plan.cache_key}/{escaped}"


def _is_relative(path: str) -> bool:
    return not path.startswith("/") and path != "~" and not path.startswith("~/")


def _cache_mount(plan: Plan, places: Places, item: str) -> str:
    path = posixpath.normpath(item)
    kept = _kept(plan, places, path)
    if _is_relative(path):
        return _mount(kept, posixpath.normpath(f"{WORK}/{plan.workdir}/{path}"))
    if path.startswith("/"):
        return _mount(kept, path)
    return _mount(kept, path[1:], home=True)


def _caches(plan: Plan, places: Places) -> list[str]:
    lines = ["job_cache() {"]
    for item in plan.cache:
        path = posixpath.normpath(item)
        seen = f"{places.code(plan)}/{path}" if _is_relative(path) else ""
        lines.append(f'    "$1" {quote(_kept(plan, places, path))} {quote(seen)}')
    return [*lines, "    :", "}"]


__all__ = [
    "BOX",
    "WORK",
    "Inside",
    "build_image",
    "container_name",
    "interpreter",
    "keys",
    "needed",
    "render_box",
    "render_job",
    "words",
]
