"""The shapes of a run: what was planned, what is happening, how it ended. Data only."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..config.shapes import EnvVar, Port, Pull, RegistryAuth, Resources, Retry

# What a run is for: the task's `setup` and `commands`, or its `build`.
Stage = Literal["run", "build"]

Status = Literal["submitted", "preparing", "running", "stopping", "done", "failed", "stopped"]

ACTIVE: frozenset[Status] = frozenset({"submitted", "preparing", "running", "stopping"})
FINISHED: frozenset[Status] = frozenset({"done", "failed", "stopped"})

# Why a run ended; docs/reference lists them, and a test holds the two together.
Reason = Literal[
    "completed",  # every command exited with 0
    "command_failed",  # a command exited with another code, or was killed by a signal
    "setup_failed",  # the same, in `setup`
    "oom",  # the memory limit was reached
    "max_duration",  # it ran as long as it may
    "stopped",  # the user stopped it
    "start_failed",  # the environment could not be made, or the job not started
    "no_capacity",  # what it asks for was not there
    "killed",  # dstack's own keeper of the job was killed from outside
    "host_restarted",  # the machine was restarted under it
]


class Exit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one attempt ended.

    `code` is the shell's (128+N when killed by signal N), `stage` and `index` (from 1) say which
    `setup` item or command was the last one begun, `detail` is a sentence of the engine's own.
    """

    code: int
    reason: Reason
    signal: int | None = None
    oom: bool = False
    stage: Literal["environment", "setup", "commands"] | None = None
    index: int | None = None
    detail: str | None = None
    image_id: str | None = None
    at: float | None = None  # seconds since the epoch, by the host's clock


class Remote(msgspec.Struct, frozen=True, omit_defaults=True):
    """The host that a run is on, where that is not this machine; enough to find it again.

    `host` is what ssh calls it, `root` is dstack's folder there, an absolute path.
    """

    host: str
    root: str
    identity_file: str | None = None


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What will be done: resolved, and nothing secret in it (secrets are references)."""

    name: str
    project: str  # absolute path of the folder that is sent
    workdir: str  # DIR, relative to `project`; "." for the project itself
    file: str  # the task file, relative to `project` where it lies inside, else absolute
    backend: str
    engine: str
    remote: Remote | None = None
    commands: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    ports: tuple[Port, ...] = ()
    python: str | None = None  # "3.11"; None when `image` is set
    interpreter: str | None = None  # absolute path on the host, None: uv fetches it
    image: str | None = None  # None: the run is processes of the host
    entrypoint: tuple[str, ...] | None = None
    registry_auth: RegistryAuth | None = None
    home_dir: str | None = None
    pull: Pull = "missing"
    client: str = ""  # absolute path of the container engine's command on the host
    gpus: tuple[int, ...] = ()  # the host's GPUs that fit; which of them, is decided there
    gpu_count: tuple[int, int] | None = None  # at least and at most so many; None: all of them
    cache: tuple[str, ...] = ()
    cache_key: str = ""  # of project and task file
    resources: Resources = Resources()
    enforce: bool = True  # whether the host lets us enforce cpu and memory
    max_duration: int | None = None  # seconds; None is off
    retry: Retry | None = None
    # PATH, HOME, LANG ... of the submitting shell; of a container: what its engine's client needs.
    base_env: tuple[tuple[str, str], ...] = ()
    build: tuple[str, ...] = ()  # the build stage, whose result the run starts from
    stage: Stage = "run"

    @property
    def stage_commands(self) -> tuple[str, ...]:
        """The commands of the build stage, whether this is it or starts from it."""
        return self.commands if self.stage == "build" else self.build


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One try at the job. `number` counts from 1 and names its job folder."""

    number: int
    started_at: float | None = None
    running_at: float | None = None
    image_id: str | None = None  # the image that its name meant: SHA256, or NAME@SHA256 if pulled
    exit: Exit | None = None


class Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run. Times are seconds since the epoch; `version` counts saves."""

    id: str
    name: str
    plan: Plan
    status: Status
    submitted_at: float
    version: int = 0
    tree: str | None = None  # the snapshot's id
    attempts: tuple[Attempt, ...] = ()
    retry_at: float | None = None  # status submitted: not before this time
    waiting: str | None = None  # why it is not started yet
    unknown_since: float | None = None  # the host does not answer since
    unknown_why: str | None = None  # a sentence for people
    restarted_at: float | None = None  # `dstack restart`: retries count from here
    first: int = 1  # number of the first attempt since submission or restart
    stop_kill: bool = False  # the user asked for SIGKILL at once
    stop_at: float | None = None  # when stopping began
    stop_code: int | None = None  # 130 when Ctrl-C stopped it
    started_at: float | None = None
    finished_at: float | None = None
    reason: Reason | None = None
    message: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False
    ports: tuple[tuple[int, int], ...] = ()  # (run, local)
    build: str | None = None  # the id of the build that it starts from
    sealed: bytes | None = None  # encrypted: values taken from the submitting shell, by name

    @property
    def active(self) -> bool:
        """Whether it has not ended yet."""
        return self.status in ACTIVE

    @property
    def attempt(self) -> Attempt | None:
        """The attempt under way, or the last one."""
        return self.attempts[-1] if self.attempts else None
