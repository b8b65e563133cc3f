"""The shared connection to a host: `ssh` with ControlMaster, held by one process for all others.

It is the user's own `ssh`, with all that ~/.ssh/config says. Ours is only where the socket lies,
how soon a dead link is noticed, and that nobody is asked anything where nobody can answer.
"""

from __future__ import annotations

import glob
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..config.address import parse_address
from ..digest import digest
from ..errors import HostError
from .ssh_ciphers import choose, has_aes
from .ssh_errors import ssh_error
from .ssh_options import SshOptions, socket_fits, ssh_argv

_CONTROL_TIMEOUT = 5.0  # a question to the shared connection's process, which is on this machine
_NO_MASTER = re.compile(r"Control socket connect|No such file or directory|Connection refused")


class Master:
    """One host's shared connection; many processes may hold one of these for the same host."""

    def __init__(self, options: SshOptions, state: Path) -> None:
        """`state` is dstack's folder on this machine."""
        self.options = options
        about = f"{options.host}\n{options.identity_file}"
        self.prefix = f"{socket_folder(state)}/{digest(about.encode())[:8]}-"
        # No mark of a run's processes: this one is shared by all, and outlives them.
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("DSTACK_")}
        self._ciphers: str | None = None  # in which order they are offered; None: as ssh does

    def argv(self, remote: Sequence[str] = (), *, ask: bool = False) -> list[str]:
        """The command line that runs `remote` there."""
        control = f"{self.prefix}%C"
        return [*ssh_argv(self.options, control, ask=ask, ciphers=self._ciphers), *remote]

    def prefer_aes(self) -> None:
        """The host computes AES fast: should we, too, it is the connection's first choice."""
        if has_aes():
            self._ciphers = choose(self.argv()[1:], parse_address(self.options.host).host, self.env)

    def there(self) -> bool:
        """Whether somebody holds the shared connection now."""
        return any(_listens(path) for path in self._sockets())

    def open(self) -> None:
        """Make it where somebody can answer what ssh asks. Raises HostError.

        Elsewhere nothing is to be done: the first that connects makes the connection.
        """
        if not can_ask():
            return
        # In the terminal's own group, so that it may read from there; it leaves when it is through.
        argv = ssh_argv(
            self.options,
            f"{self.prefix}%C",
            ask=True,
            ciphers=self._ciphers,
            extra=["-N", "-f"],
        )
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.env,
        )
        said = _copy_until_exit(child)
        if child.returncode != 0:
            raise ssh_error(self.options.host, said)

    def forward(self, listen: str, target: str) -> None:
        """Forward `listen` here ([ADDRESS:]PORT or a path) to `target` there. Raises HostError."""
        self._control("forward", listen, target)

    def cancel(self, listen: str, target: str) -> None:
        """End a forwarding; nothing when there is none any more."""
        try:
            self._control("cancel", listen, target)
        except HostError:
            pass

    def close(self) -> None:
        """End the shared connection, however stuck it is; nothing when there is none."""
        for path in self._sockets():
            argv = ["ssh", "-o", f"ControlPath={path}", "-O", "exit", "--", "none"]
            try:
                self._run(argv)
            except subprocess.TimeoutExpired:
                _kill_master(path)
            except OSError as error:
                raise _no_ssh(error) from None
            Path(path).unlink(missing_ok=True)

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[bytes]:
        """Ask the master for something. Raises TimeoutExpired, OSError."""
        return subprocess.run(
            argv,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CONTROL_TIMEOUT,
            check=False,
        )

    def _control(self, what: str, listen: str, target: str) -> None:
        argv = ssh_argv(
            self.options,
            f"{self.prefix}%C",
            ask=False,
            forward=True,
            extra=["-O", what, "-L", f"{listen}:{target}"],
        )
        try:
            done = self._run(argv)
        except subprocess.TimeoutExpired:
            raise ssh_error(self.options.host, "") from None
        except OSError as error:
            raise _no_ssh(error) from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()
            if _NO_MASTER.search(said):
                raise ssh_error(self.options.host, "")
            message = (
                f"port {listen} cannot be forwarded: {said.splitlines()[-1] if said else what}"
            )
            raise HostError(message)

    def _sockets(self) -> list[str]:
        return glob.glob(f"{glob.escape(self.prefix)}*")


def _no_ssh(error: OSError) -> HostError:
    return HostError(f"cannot run ssh: {error.strerror}", hint="install OpenSSH's client")


def can_ask() -> bool:
    """Whether somebody sits at a terminal that ssh may ask."""
    try:
        return os.isatty(0) and os.isatty(2) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def socket_folder(state: Path) -> str:
    """Where sockets lie: in dstack's folder, or where the path is shorter. Raises HostError."""
    name = f"dstack-{digest(os.fsencode(state))[:8]}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    candidates = [f"{state}/ssh"]
    candidates += [f"{runtime}/{name}"] if runtime.startswith("/") else []
    candidates.append(f"/tmp/{name}-{os.getuid()}")  # noqa: S108 - checked to be ours, below
    folder = next((path for path in candidates if socket_fits(path)), candidates[-1])
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError as error:
        raise HostError(f"cannot make {folder}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise HostError(f"{folder} belongs to another user", hint="set XDG_RUNTIME_DIR")
    if found.st_mode & 0o077:
        os.chmod(folder, 0o700)
    return folder


def _listens(path: str) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONTROL_TIMEOUT)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _copy_until_exit(child: subprocess.Popen[bytes]) -> str:
    """Show what ssh says as it says it; all of it, when it has exited.

    Its background half may keep the pipe open: the end of the process counts, not that of the pipe.
    """
    import select

    assert child.stderr is not None  # noqa: S101 - made a pipe
    fd = child.stderr.fileno()
    os.set_blocking(fd, False)
    said = bytearray()
    try:
        while True:
            ended = child.poll() is not None
            try:
                data = os.read(fd, 1 << 16)
            except BlockingIOError:
                data = None
            if data:
                said += data
                sys.stderr.write(data.decode("utf-8", "replace"))
                sys.stderr.flush()
            elif ended:
                break
            else:
                select.select([fd] if data is None else [], [], [], 0.02)
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        child.stderr.close()
    return said.decode("utf-8", "replace")


def _kill_master(path: str) -> None:
    """End the process whose title names the socket, and nobody else's."""
    title = f"ssh: {path} [mux]".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().startswith(title):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
    until = time.monotonic() + _CONTROL_TIMEOUT
    while _listens(path) and time.monotonic() < until:
        time.sleep(0.01)
