"""This machine. No fork where a system call will do: it is on the path of every command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HostError
from .base import Completed, Content, File, Machine, ProcessId
from .environment import find_program, passed_through
from .local_files import MISSING, delete_tree, read_small, write_aside

if TYPE_CHECKING:
    from _socket import socket

    from .local_streams import LocalStream, LocalWatch

# What Python or a shell above us may have set to "ignore" must not reach the run's commands.
_RESET_SIGNALS = ("HUP", "INT", "QUIT", "PIPE", "ALRM", "TERM", "USR1", "USR2", "CHLD")
_RESET_TERMINAL_SIGNALS = ("TSTP", "TTIN", "TTOU", "XFSZ")
_LISTENS = 10.0  # seconds that a service has to accept a connection


class LocalHost:
    """The machine that dstack itself runs on."""

    name = "local"

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._children: set[int] = set()
        self._boot: str | None = None
        self._uv: str | None = None

    @property
    def root(self) -> Path:
        """See Host."""
        if self._root is None:
            from ..paths import find_home

            self._root = find_home().root
        return self._root

    def connect(self) -> None:
        """See Host."""

    def ready(self) -> bool:
        """See Host."""
        return True

    def shares(self) -> bool:
        """See Host."""
        return True

    def close(self) -> None:
        """See Host."""

    @contextmanager
    def batch(self) -> Iterator[None]:
        """See Host: it is done at once here."""
        yield

    def afterwards(self, act: Callable[[], None]) -> None:
        """See Host."""
        act()

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """See Host."""
        import subprocess

        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=env,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            message = f"{argv[0]} did not answer within {timeout:g} s"
            raise HostError(message) from None
        except OSError as error:
            message = f"cannot run {argv[0]}: {error.strerror}"
            raise HostError(message) from None
        return Completed(done.returncode, done.stdout, done.stderr)

    def query(self, argv: Sequence[str], what: str, *, timeout: float) -> bytes:
        """See Host."""
        done = self.run(argv, timeout=timeout)
        if done.code != 0:
            said = (done.out + done.err).decode("utf-8", "replace").strip().splitlines()
            raise HostError(f"{what}: {said[-1]}" if said else what)
        return done.out

    def foresee(self, argv: Sequence[str]) -> None:
        """See Host: nothing is gained by it here."""

    def foresee_survey(self, paths: Sequence[Path], links: Sequence[Path]) -> None:
        """See Host."""

    def foresee_read(self, path: Path, offset: int, limit: int) -> None:
        """See Host."""

    def do(self, argv: Sequence[str], what: str, *, timeout: float) -> None:
        """See Host."""
        self.query(argv, what, timeout=timeout)

    def put(self, folder: Path, files: Mapping[str, File]) -> None:
        """See Host."""
        try:
            os.makedirs(folder, 0o700, exist_ok=True)
            for name, file in files.items():
                write_aside(f"{folder}/{name}", file)
        except OSError as error:
            message = f"cannot write {error.filename or folder}: {error.strerror}"
            raise HostError(message) from None

    def read_many(self, paths: Sequence[Path]) -> list[Content | None]:
        """See Host."""
        return [read_small(os.fspath(path)) for path in paths]

    def spawn(self, argv: Sequence[str], *, env: Mapping[str, str], output: Path) -> int:
        """See Host."""
        import signal

        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.fspath(output), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        reset = [getattr(signal, f"SIG{name}") for name in _RESET_SIGNALS + _RESET_TERMINAL_SIGNALS]
        whole = {**passed_through(os.environ), **env}
        try:
            pid = os.posix_spawn(
                argv[0],
                list(argv),
                whole,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=reset,
            )
        except NotImplementedError:
            pid = _spawn_without_setsid(argv, whole, output)
        except OSError as error:
            message = f"cannot start {argv[0]}: {error.strerror}"
            raise HostError(message) from None
        self._children.add(pid)
        return pid

    def survey(
        self, paths: Sequence[Path], links: Sequence[Path]
    ) -> tuple[list[Content | None], list[bool]]:
        """See Host."""
        alive = []
        for link in self.read_many(links):
            try:
                alive += self.alive([ProcessId.parse(os.fsdecode(link.data))]) if link else [False]
            except ValueError:
                alive.append(False)
        return self.read_many(paths), alive

    def read_from(self, path: Path, offset: int, limit: int) -> bytes | None:
        """See Host."""
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(offset)
                return file.read(limit)
        except OSError as error:
            if error.errno in MISSING:
                return None
            message = f"cannot read {path}: {error.strerror}"
            raise HostError(message) from None

    def follow(self, path: Path, offset: int) -> LocalStream:
        """See Host."""
        from .local_streams import LocalStream

        return LocalStream(path, offset)

    def put_tree(self, archive: Iterable[bytes], folder: Path) -> None:
        """See Host."""
        from .local_streams import unpack

        unpack(archive, folder)

    @contextmanager
    def forward(self, local: tuple[str, int] | Path, remote: tuple[str, int]) -> Iterator[None]:
        """See Host: what is on this machine is reached where it is."""
        if local != remote:
            message = f"{remote[0]}:{remote[1]} is on this machine: nothing has to lead there"
            raise HostError(message)
        yield

    def alive(self, processes: Sequence[ProcessId]) -> list[bool]:
        """See Host."""
        return [self._is_alive(process) for process in processes]

    def boot_id(self) -> str:
        """See Host."""
        if self._boot is None:
            found = read_small("/proc/sys/kernel/random/boot_id")
            self._boot = found.data.decode().strip() if found else ""
        return self._boot

    def signal(self, process: ProcessId, number: int) -> bool:
        """See Host."""
        # The pidfd is taken before the look: from then on the pid cannot become another's.
        try:
            fd = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
        except OSError:
            return False
        try:
            if not self._is_alive(process):
                return False
            if fd is None:
                os.kill(process.pid, number)
            else:
                import signal

                signal.pidfd_send_signal(fd, number)
        except OSError:
            return False
        finally:
            if fd is not None:
                os.close(fd)
        return True

    def watch(self, processes: Sequence[ProcessId]) -> LocalWatch:
        """See Host."""
        from .local_streams import LocalWatch

        return LocalWatch(processes, self.alive)

    def list_folder(self, folder: Path) -> list[str]:
        """See Host."""
        try:
            return os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            message = f"cannot read {folder}: {error.strerror}"
            raise HostError(message) from None

    def delete(self, path: Path) -> None:
        """See Host."""
        import shutil

        if not os.path.lexists(path):
            return
        try:
            if path.is_dir() and not path.is_symlink():
                delete_tree(path)
            else:
                path.unlink(missing_ok=True)
        except (OSError, shutil.Error) as error:
            message = f"cannot delete {path}: {getattr(error, 'strerror', None) or error}"
            raise HostError(message) from None

    @property
    def near(self) -> bool:
        """See Host."""
        return True

    @property
    def platform(self) -> str:
        """See Host."""
        found = os.uname()
        return f"{found.sysname}-{found.machine}".lower()

    @property
    def uid(self) -> int:
        """See Host."""
        return os.getuid()

    @property
    def environ(self) -> Mapping[str, str]:
        """See Host."""
        return os.environ

    def commands(self, names: Sequence[str]) -> dict[str, str]:
        """See Host."""
        folders = os.environ.get("PATH", os.defpath)
        return {name: path for name in names if (path := find_program(name, folders))}

    def dial(self, path: str) -> socket:
        """See Host."""
        # `socket` makes enumerations of all there is, which takes 2 ms of a command's start.
        from _socket import AF_UNIX, socket

        link = socket(AF_UNIX)
        try:
            link.settimeout(_LISTENS)
            link.connect(path)
        except OSError as error:
            link.close()
            message = f"nothing listens on {path}: {error.strerror}"
            raise HostError(message) from None
        return link

    def machine(self) -> Machine:
        """See Host."""
        from .local_machine import look_at_machine

        return look_at_machine(self.root)

    def uv(self) -> str | None:
        """See Host: it is installed with dstack, so there is nothing to be put anywhere."""
        return self.find_uv()

    def find_uv(self) -> str | None:
        """See Host: beside the Python that runs dstack, else where the package says, else PATH."""
        if self._uv is None:
            self._uv = _find_uv() or ""
        return self._uv or None

    def _is_alive(self, process: ProcessId) -> bool:
        if process.pid in self._children:
            try:
                if os.waitpid(process.pid, os.WNOHANG)[0]:
                    self._children.discard(process.pid)
                    return False
            except ChildProcessError:
                self._children.discard(process.pid)
        if process.boot and process.boot != self.boot_id():
            return False
        found = read_small(f"/proc/{process.pid}/stat")
        if found is None:
            return not process.started and _exists(process.pid)
        fields = found.data.rpartition(b")")[2].split()
        if fields[0] in (b"Z", b"X"):
            return False
        return not process.started or fields[19].decode() == process.started


def _exists(pid: int) -> bool:
    if os.path.isdir("/proc/self"):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _spawn_without_setsid(argv: Sequence[str], env: Mapping[str, str], output: Path) -> int:
    import subprocess

    with output.open("ab") as out:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=env,
            start_new_session=True,
        )
    # It outlives us, and `alive` collects it: Popen must not warn about either.
    child.returncode = 0
    return child.pid


def _find_uv() -> str | None:
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    if os.access(beside, os.X_OK):
        return beside
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        pass
    return find_program("uv", os.environ.get("PATH", ""))
