"""WHERE things run: everything an engine does to a machine goes through a Host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec


class File(msgspec.Struct, frozen=True):
    """What `put` writes. `keep`: what is there already stays as it is."""

    data: bytes
    mode: int = 0o600
    keep: bool = False


class Content(msgspec.Struct, frozen=True):
    """What `read_many` read: a file's bytes or a link's target; `at` is its mtime (epoch s)."""

    data: bytes
    at: float


class Completed(msgspec.Struct, frozen=True):
    """A command that ended; `code` is -N when signal N killed it, as in subprocess."""

    code: int
    out: bytes
    err: bytes


class ProcessId(msgspec.Struct, frozen=True):
    """A process that no other can be mistaken for.

    `started` is in clock ticks since boot (proc(5), field 22) and `boot` the kernel's boot id;
    both are empty on systems without /proc.
    """

    pid: int
    started: str = ""
    boot: str = ""

    @classmethod
    def parse(cls, text: str) -> ProcessId:
        """Read `PID:STARTED:BOOT`; raises ValueError."""
        pid, started, boot = text.split(":")
        return cls(int(pid), started, boot)


class Host(Protocol):
    """A machine. Raises HostError (HostUnreachable) when it does not do as asked; OSError never."""

    name: str

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run a command to its end; `timeout` seconds, then it is killed and HostError raised."""
        ...

    def put(self, folder: Path, files: Mapping[str, File]) -> None:
        """Write files, each aside and renamed, into a folder that is made (0700) when missing."""
        ...

    def read_many(self, paths: Sequence[Path]) -> list[Content | None]:
        """What small files hold, a link's own target for a link; None for what is not there."""
        ...

    def spawn(self, argv: Sequence[str], *, env: Mapping[str, str], output: Path) -> int:
        """Start a process in a session of its own that outlives us; its pid.

        `env` is its whole environment but for what the host passes through.
        """
        ...

    def alive(self, processes: Sequence[ProcessId]) -> list[bool]:
        """Whether each is that same process still, and not a zombie."""
        ...

    def boot_id(self) -> str:
        """The kernel's boot id; empty where there is none."""
        ...

    def signal(self, process: ProcessId, number: int) -> bool:
        """Send a signal to that very process; False when it is gone."""
        ...

    def list_folder(self, folder: Path) -> list[str]:
        """The names in a folder; none when it is not there."""
        ...

    def delete(self, path: Path) -> None:
        """Delete a file or a folder with all that is in it; nothing when it is not there."""
        ...

    def uv(self) -> str | None:
        """The absolute path of uv there."""
        ...
