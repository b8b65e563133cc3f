"""The shapes that a task file and a profile are read into. Data only."""

from __future__ import annotations

from typing import Literal

import msgspec


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A literal part of a value."""

    text: str


class Variable(msgspec.Struct, frozen=True, tag="variable"):
    """`$NAME` or `${NAME}`: expanded where the run happens."""

    name: str


class Secret(msgspec.Struct, frozen=True, tag="secret"):
    """`${{ secrets.NAME }}`: a reference, resolved only when a job is started."""

    name: str


Part = Text | Variable | Secret


class EnvVar(msgspec.Struct, frozen=True):
    """One environment variable; `value` None takes the submitting shell's."""

    name: str
    value: tuple[Part, ...] | None = None


class Port(msgspec.Struct, frozen=True):
    """The run's port `run` appears at 127.0.0.1:`local`; None: the first free one from `run` up."""

    run: int
    local: int | None


class Range(msgspec.Struct, frozen=True):
    """`least` to `most`, both included; None is open. `8` is 8..8. Memory and disk are bytes."""

    least: float | None = None
    most: float | None = None


class Gpu(msgspec.Struct, frozen=True):
    """What is asked of GPUs: how many, what they are called, how much memory each has (bytes)."""

    count: Range = Range(1, 1)
    name: str | None = None
    memory: Range | None = None


class Resources(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run asks for; None is "not asked". `memory`, `shm_size` and `disk` are bytes."""

    cpu: Range | None = None
    memory: Range | None = None
    gpu: Gpu | None = None
    shm_size: int | None = None
    disk: Range | None = None


RetryEvent = Literal["no-capacity", "interruption", "error"]


class Retry(msgspec.Struct, frozen=True):
    """Try again on these events until `duration` seconds after the run was submitted."""

    on_events: tuple[RetryEvent, ...]
    duration: int


class RegistryAuth(msgspec.Struct, frozen=True):
    """How to pull a private image; both may hold secrets."""

    username: tuple[Part, ...]
    password: tuple[Part, ...]


Pull = Literal["missing", "always"]
SpotPolicy = Literal["spot", "on-demand", "auto"]


class Settings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What can stand in the command line, the task file and a profile; None is "not said".

    `max_duration` is seconds, 0 is `off`. `retry` with no events is "no retry" said aloud.
    """

    backends: tuple[str, ...] | None = None
    resources: Resources = Resources()
    spot_policy: SpotPolicy | None = None
    max_price: float | None = None
    retry: Retry | None = None
    max_duration: int | None = None


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task file, checked and interpolated. `settings` holds what profiles know too."""

    commands: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    ports: tuple[Port, ...] = ()
    cache: tuple[str, ...] = ()
    python: str | None = None
    image: str | None = None
    entrypoint: tuple[str, ...] | None = None
    registry_auth: RegistryAuth | None = None
    home_dir: str | None = None
    pull: Pull = "missing"
    name: str | None = None
    settings: Settings = Settings()
