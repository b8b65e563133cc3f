"""WHERE things run: everything an engine does to a machine goes through a Host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from _socket import socket


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


class Stream(Protocol):
    """The bytes of a file that grows, as they come; `fileno` is readable when some have."""

    def fileno(self) -> int:
        """For poll(2); it stays the same as long as the stream lives."""
        ...

    def read(self, limit: int = 1 << 20) -> bytes | None:
        """What has come, without waiting; None: nothing now; empty: it has ended (or broke off)."""
        ...

    def move(self, fd: int, at: int, limit: int = 1 << 20) -> int | None:
        """Write what has come to a file at byte `at`; how many bytes, else as `read`.

        An OSError of that file is raised as it is.
        """
        ...

    def close(self) -> None:
        """End it, here and there."""
        ...


class Watch(Protocol):
    """Tells of the end of processes. `fileno` becomes readable when one may have ended.

    Ask `ended` before you wait: another request may have taken what was to be read there.
    """

    def fileno(self) -> int:
        """For poll(2); it stays the same as long as the watch lives."""
        ...

    def ended(self) -> set[ProcessId]:
        """Those that have ended, without waiting.

        All of them when the connection broke: look, and watch anew.
        """
        ...

    def close(self) -> None:
        """Watch no more."""
        ...


class Machine(msgspec.Struct, frozen=True):
    """What a host has: `memory` and `disk` (free, where dstack's folder lies) are bytes.

    `pythons` are interpreters that are known without a search: "3.11" to an absolute path.
    """

    cpus: int
    memory: int
    disk: int
    pythons: Mapping[str, str] = {}


class Host(Protocol):
    """A machine. Raises HostError (HostUnreachable) when it does not do as asked; OSError never.

    Not for several threads at once.
    """

    name: str

    @property
    def root(self) -> Path:
        """Where dstack's folder lies there, absolute."""
        ...

    def connect(self) -> None:
        """Begin to connect, without waiting for it where nobody is asked anything."""
        ...

    def ready(self) -> bool:
        """Whether it can be asked without waiting for a connection.

        Raises HostError when the one that `connect` began could not be made.
        """
        ...

    def shares(self) -> bool:
        """Whether there is a connection that was made before, by whomever: nobody is asked."""
        ...

    def close(self) -> None:
        """Let go of what this process holds; what was spawned goes on."""
        ...

    def batch(self) -> AbstractContextManager[None]:
        """Inside, `do`, `put`, `put_tree` and `delete` need not be done when they return.

        They are before the next answer and at the end; after one failed, none that follows is
        done, and its error is raised there.
        """
        ...

    def afterwards(self, act: Callable[[], None]) -> None:
        """Call it once all that was asked before is done, or has failed: at a batch's end."""
        ...

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run a command to its end; `timeout` seconds, then it is killed and HostError raised."""
        ...

    def query(self, argv: Sequence[str], what: str, *, timeout: float) -> bytes:
        """What a command prints that has to succeed; else `what` could not be done, and why."""
        ...

    def foresee(self, argv: Sequence[str]) -> None:
        """This will be the next query, or one of the next: the host may begin with it.

        It holds until anything else is asked.
        """
        ...

    def foresee_survey(self, paths: Sequence[Path], links: Sequence[Path]) -> None:
        """The same for a survey."""
        ...

    def foresee_read(self, path: Path, offset: int, limit: int) -> None:
        """The same for `read_from`."""
        ...

    def do(self, argv: Sequence[str], what: str, *, timeout: float) -> None:
        """Run a command that has to succeed; in a batch, later. `what` could not be done if not."""
        ...

    def put(self, folder: Path, files: Mapping[str, File]) -> None:
        """Write files, each aside and renamed, into a folder that is made (0700) when missing."""
        ...

    def read_many(self, paths: Sequence[Path]) -> list[Content | None]:
        """What small files hold, a link's own target for a link; None for what is not there."""
        ...

    def survey(
        self, paths: Sequence[Path], links: Sequence[Path]
    ) -> tuple[list[Content | None], list[bool]]:
        """`read_many(paths)`, and whether the process lives that each link names as its target.

        False for a link that is not there, or names none.
        """
        ...

    def read_from(self, path: Path, offset: int, limit: int) -> bytes | None:
        """Bytes of a file from an offset on, at most `limit`; None: there is no file."""
        ...

    def follow(self, path: Path, offset: int) -> Stream:
        """The bytes of a growing file from an offset on; waits for the file where there is none."""
        ...

    def watch(self, processes: Sequence[ProcessId]) -> Watch:
        """Be told when they end."""
        ...

    def put_tree(self, archive: Iterable[bytes], folder: Path) -> None:
        """Unpack a tar archive into a folder, which is made (0700) when missing.

        What was unpacked when it breaks off stays.
        """
        ...

    def forward(
        self, local: tuple[str, int] | Path, remote: tuple[str, int]
    ) -> AbstractContextManager[None]:
        """Connections to `local` here, an address or a socket's path, reach `remote` there.

        It ends with the connection: forward anew then.
        """
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

    @property
    def near(self) -> bool:
        """Whether many small questions are cheaper than one command."""
        ...

    @property
    def platform(self) -> str:
        """`linux-x86_64`: the system and the machine, as uname has them, in small letters."""
        ...

    @property
    def uid(self) -> int:
        """The user's number there."""
        ...

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment that commands have there."""
        ...

    def commands(self, names: Sequence[str]) -> dict[str, str]:
        """The absolute paths of those of these commands that are on its PATH."""
        ...

    def dial(self, path: str) -> socket | None:
        """A connection to a service's socket; None where asking its command is cheaper.

        Raises HostError when nothing listens there.
        """
        ...

    def machine(self) -> Machine | None:
        """What can be told without starting anything there; None: nothing."""
        ...

    def find_uv(self) -> str | None:
        """The absolute path of uv there; None: there is none."""
        ...

    def uv(self) -> str | None:
        """The same; where there is none, it is put there. Raises HostError when that fails."""
        ...
