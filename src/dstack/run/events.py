"""What can happen to a run. Data only; `states.py` says what each event does."""

from __future__ import annotations

import msgspec

from .model import Exit, Reason


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The job of attempt `attempt` was handed to the engine."""

    at: float
    attempt: int


class Began(msgspec.Struct, frozen=True, tag="began", omit_defaults=True):
    """The commands run; in a container, of this image."""

    at: float
    image_id: str | None = None


class StopRequested(msgspec.Struct, frozen=True, tag="stop-requested", omit_defaults=True):
    """Somebody wants it to end; `code` is the exit code to report instead of the job's own."""

    at: float
    kill: bool = False
    code: int | None = None


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The attempt under way has ended."""

    at: float
    exit: Exit


class StartFailed(msgspec.Struct, frozen=True, tag="start-failed"):
    """The job could not be handed to the engine."""

    at: float
    reason: Reason
    message: str


class Vanished(msgspec.Struct, frozen=True, tag="vanished"):
    """Nothing is left of the attempt, and nothing says how it ended.

    Only the holder of the run's lease may say so: anybody else might be looking while it starts.
    """

    at: float


class Unreachable(msgspec.Struct, frozen=True, tag="unreachable", omit_defaults=True):
    """Where it runs does not answer, or for another reason than before."""

    at: float
    why: str | None = None


class Reached(msgspec.Struct, frozen=True, tag="reached"):
    """Where it runs answers again."""

    at: float


class Restarted(msgspec.Struct, frozen=True, tag="restarted", omit_defaults=True):
    """The user wants it once more, in the same environment."""

    at: float
    ports: tuple[tuple[int, int], ...] = ()


Event = (
    Started
    | Began
    | StopRequested
    | Ended
    | StartFailed
    | Vanished
    | Unreachable
    | Reached
    | Restarted
)
