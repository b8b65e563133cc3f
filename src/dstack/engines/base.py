"""What every engine offers: data about itself, a pure step that plans a job, and four effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from ..run.model import Plan, Run
from ..run.observation import (
    Absent,
    Exited,
    Observation,
    Preparing,
    Running,
    Unknown,
    Waiting,
)


class GpuFact(msgspec.Struct, frozen=True):
    """One GPU of a host: `memory` in bytes, 0 where it is not known; `number` as nvidia-smi counts.

    `used` is how much of the memory is in use now, by whomever; None: it is not told.
    """

    name: str
    memory: int
    number: int = 0
    uuid: str = ""
    used: int | None = None


class Facts(msgspec.Struct, frozen=True):
    """What a host offers. `memory` and `disk` (free, where runs lie) are bytes.

    `pythons` maps "3.11" to an interpreter's absolute path. `limits` says whether cpu and memory
    can be enforced; where not, `limits_why` says why not. `fetch` is whether uv may download a
    Python that is not there. `gpus_why` is what is wrong with GPUs that are missing in `gpus`.
    """

    cpus: int
    memory: int
    disk: int
    gpus: tuple[GpuFact, ...] = ()
    gpus_why: str | None = None
    pythons: Mapping[str, str] = {}
    fetch: bool = True
    limits: bool = False
    limits_why: str | None = None


class Job(msgspec.Struct, frozen=True):
    """One attempt, ready to be started: everything but the secrets' values.

    `needs` names the values that `start` must be given: `secret:NAME` and `env:NAME`. `keys` are
    more of them, which the job itself never sees (what its image is pulled with).
    """

    name: str  # RUN_ID-ATTEMPT
    directory: str  # the job folder, absolute, on the host
    script: str  # job.sh, literally
    needs: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    files: Mapping[str, str] = {}  # what lies beside job.sh: job.json, and what the script calls


# A host and a port.
Address = tuple[str, int]


class Reach(msgspec.Struct, frozen=True):
    """Where a job's port is reached; `address` None: not now.

    `foreign`: what listens there belongs to somebody else, or to another job: `NAME PID`, empty
    where that cannot be seen.
    """

    address: Address | None = None
    foreign: str | None = None


StopReason = Literal["stopped", "max_duration"]


class Engine(Protocol):
    """How a job runs. Every effect is idempotent by the job's folder."""

    name: str

    def facts(self, *, pythons: bool = False, limits: bool = False) -> Facts:
        """What the host offers; interpreters and limits are only looked for when asked."""
        ...

    def plan(self, run: Run, run_folder: Path, attempt: int) -> Job:
        """The job of one attempt. Pure."""
        ...

    def start(self, job: Job, values: Mapping[str, str], *, fresh: bool = False) -> int | None:
        """Start it, or adopt what was started before; the keeper's pid where there is one.

        `fresh`: it cannot have been started before.
        `values` holds what `job.needs` names. Raises CannotStart.
        """
        ...

    def poll(self, directories: Sequence[Path]) -> Mapping[Path, Observation]:
        """What is to be seen of each job folder, in one batch."""
        ...

    def foresee(self, directory: Path) -> None:
        """`poll` of this job comes next: its host may begin to answer. Raises HostError."""
        ...

    def stop(self, directory: Path, *, kill: bool, reason: StopReason = "stopped") -> None:
        """Ask everything the job started to end (SIGTERM, SIGKILL after 10 s; `kill`: at once).

        Returns before they have ended. Doing it twice does no harm.
        """
        ...

    def address(self, directory: Path, port: int) -> Reach:
        """Where its host reaches a job's port, once the job's app listens there.

        Raises HostError.
        """
        ...

    def note(self, directory: Path) -> str | None:
        """What one should know of a job's start; None: nothing. Raises HostError."""
        ...

    def base(self, directory: Path) -> str:
        """The digest of the image that a job ran in; empty without one."""
        ...

    def find_base(self, plan: Plan) -> str:
        """The digest of the image that `plan` means now; empty if there is none here."""
        ...

    def build_image(self, directory: Path) -> tuple[str, int] | None:
        """What a build stage made in the engine: the image's name, and bytes; None: nothing."""
        ...

    def discard_image(self, image: str, client: str, environ: Mapping[str, str]) -> None:
        """Delete an image that a build stage made; nothing when it is gone. Raises HostError."""
        ...

    def take_back(self, run_folder: Path, directory: Path) -> None:
        """Make what the job of that folder wrote this user's own."""
        ...

    def clear(self, run_folder: Path) -> None:
        """Delete the code and the environment of a run that has ended; not its logs."""
        ...

    def remove(self, run_folder: Path) -> None:
        """End what is left of a run's jobs, then delete its folder. Doing it twice does no harm."""
        ...


__all__ = [
    "Absent",
    "Address",
    "Engine",
    "Exited",
    "Facts",
    "GpuFact",
    "Job",
    "Observation",
    "Preparing",
    "Reach",
    "Running",
    "StopReason",
    "Unknown",
    "Waiting",
]
