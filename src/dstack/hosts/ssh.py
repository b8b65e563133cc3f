"""A machine that the user's own `ssh` reaches; it needs a POSIX shell, its companions, and tar."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..errors import HostError, HostUnreachable
from .base import Completed, Content, File, ProcessId
from .channel import REMOTE, Answer, Broken, Channel, Silent
from .known import recall, remember
from .ssh_errors import ssh_error
from .ssh_master import Master
from .ssh_options import SshOptions
from .ssh_requests import (
    Hello,
    address_text,
    done_text,
    environment_text,
    parse_alive,
    parse_hello,
    parse_keepers,
    parse_look,
    printed,
    put_text,
    query_text,
    quote,
    read_text,
    reason,
    say_if_full,
    survey_text,
    unpack_text,
    words,
)
from .ssh_streams import FollowStream, run_line, send_tree

_CONNECT = 45.0  # seconds until a host must have said who it is
_ANSWER = 20.0  # ... and must have answered what is done at once there
_DELETE = 600.0  # ... or may take long
_INLINE = 1 << 16  # bytes of an archive that are not worth a channel of their own
_NOT_RUN = (126, 127)  # what a shell exits with when it cannot run a command
_SIGNALLED = range(129, 193)


class SshHost:
    """See Host. `name` is what the user calls it; `state` dstack's folder on this machine."""

    def __init__(self, name: str, options: SshOptions, state: Path) -> None:
        self.name = name
        self.options = options
        self._state = state
        self._master_: Master | None = None
        self._channel: Channel | None = None
        self._hello: Hello | None = None
        self._assumed: Hello | None = None  # what it said the last time, until it says so again
        self._foreseen: dict[bytes, int] = {}  # requests that were sent before they are needed
        self._channel_of_foreseen: Channel | None = None
        self._greeting: int | None = None
        self._batch = 0
        self._deferred: list[tuple[int, str, float]] = []  # answers that nobody waited for
        self._uv: str | None = None

    # The connection

    @property
    def root(self) -> Path:
        """See Host: as it was the last time; a host that says otherwise now is not used so."""
        if self._hello is None and self._assumed is None:
            self._assumed = recall(self.options, self._state)
        known = self._hello or self._assumed
        return Path(known.root if known is not None else self.hello.root)

    @property
    def hello(self) -> Hello:
        """Who and where we are there. Raises HostError."""
        if self._hello is None:
            self._open()
        assert self._hello is not None  # noqa: S101 - or it has raised
        return self._hello

    @property
    def master(self) -> Master:
        """The shared connection. Raises HostError when its socket can lie nowhere."""
        if self._master_ is None:
            self._master_ = Master(self.options, self._state)
        return self._master_

    def connect(self) -> None:
        """See Host."""
        if self._channel is not None and self._channel.broken is None:
            return
        self.close()
        self.master.open()
        try:
            self._channel = Channel(self.master.argv([REMOTE]), self.master.env)
        except OSError as error:
            message = f"cannot run ssh: {error.strerror}"
            raise HostError(message, hint="install OpenSSH's client") from None
        self._deferred.clear()
        self._greeting = self._channel.ask(words("hello", self.options.root))

    def close(self) -> None:
        """See Host. The shared connection stays for the next process."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._greeting = None
            self._foreseen.clear()

    def disconnect(self) -> None:
        """End the shared connection, too."""
        self.close()
        self.master.close()

    def _open(self) -> Channel:
        self.connect()
        channel = self._channel
        assert channel is not None  # noqa: S101 - connect made it, or has raised
        if self._greeting is not None:
            try:
                answer = channel.wait(self._greeting, time.monotonic() + _CONNECT)
            except Broken as broken:
                raise self._lost(broken) from None
            except Silent:
                self.close()
                # Where not even a shell starts, the connection itself is stuck.
                self.master.close()
                message = f"{self.options.host} cannot be reached: it does not answer"
                raise HostUnreachable(message) from None
            self._greeting = None
            channel.forget_err()
            try:
                self._hello = parse_hello(answer.frames)
            except HostError as error:
                self.close()
                message = f"{self.options.host} cannot be used: {error.message}"
                raise HostError(message, hint=error.hint) from None
            self._agree(self._hello)
        return channel

    def _agree(self, hello: Hello) -> None:
        """Whether it is as it was the last time."""
        assumed, self._assumed = self._assumed, None
        if assumed is None or msgspec.structs.replace(hello, env={}) != assumed:
            remember(self.options, self._state, hello)
        if assumed is not None and assumed.root != hello.root:
            self.close()
            message = f"{assumed.root} is at {hello.root} now on {self.name}"
            raise HostUnreachable(message, hint="try again")

    def _foresee(self, text: bytes) -> None:
        """Send what will be asked next, without waiting for anything. Raises HostError."""
        self.connect()
        if self._channel is not None and not self._batch:
            self._channel_of_foreseen = self._channel
            self._foreseen[text] = self._channel.ask(text)

    def _lost(self, broken: Broken) -> HostError:
        self.close()
        return ssh_error(self.options.host, broken.said)

    def _ask(self, text: bytes, *, timeout: float = _ANSWER, again: bool = True) -> Answer:
        """The answer to a request. `again`: it may be sent twice. Raises HostError."""
        fresh = self._channel is None or self._greeting is not None
        foreseen = self._foreseen.pop(text, None)
        channel = self._open()
        tied = bool(self._deferred)
        if foreseen is None or self._channel_of_foreseen is not channel:
            self._foreseen.clear()
            foreseen = channel.ask(self._guarded(text))
        number = foreseen
        try:
            self._settle(channel)
            return channel.wait(number, time.monotonic() + timeout)
        except Broken as broken:
            error = self._lost(broken)
            # An old connection breaks when the machine slept or changed networks: one more try.
            if fresh or tied or not again or not error.transient:
                raise error from None
        except Silent:
            self.close()
            message = f"{self.options.host} did not answer within {timeout:g} s"
            raise HostUnreachable(message) from None
        return self._ask(text, timeout=timeout, again=False)

    def _do(self, text: bytes, what: str, *, timeout: float = _ANSWER) -> None:
        """What is only done; later, in a batch. `what` could not be done when it fails."""
        if self._batch:
            channel = self._open()
            self._foreseen.clear()
            self._deferred.append((channel.ask(self._guarded(text)), what, timeout))
            return
        _check(self._ask(text, timeout=timeout), what)

    def _guarded(self, text: bytes) -> bytes:
        if not self._batch:
            return text
        return b'if [ -z "$d_bad" ]; then ' + text + b"\nelse mark skipped; finish 1; fi"

    def _settle(self, channel: Channel) -> None:
        """The answers that nobody has waited for. Raises what the first failed one says."""
        first: HostError | None = None
        while self._deferred:
            number, what, timeout = self._deferred.pop(0)
            answer = channel.wait(number, time.monotonic() + timeout)
            try:
                _check(answer, what)
            except HostError as error:
                first = first or error
        if first is not None:
            raise first

    @contextmanager
    def batch(self) -> Iterator[None]:
        """See Host."""
        if self._batch == 0:
            self._open().tell(b"d_bad=")
        self._batch += 1
        try:
            yield
            if self._batch == 1 and self._deferred:
                self._flush()
        finally:
            self._batch -= 1
            if self._batch == 0:
                self._deferred.clear()

    def _flush(self) -> None:
        channel = self._open()
        try:
            self._settle(channel)
        except Broken as broken:
            raise self._lost(broken) from None
        except Silent:
            self.close()
            raise HostUnreachable(f"{self.options.host} did not answer") from None

    # Commands and files

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """See Host. A command that exits with 128 + N looks as if signal N had killed it."""
        channel = self._open()
        self._foreseen.clear()
        made = b":"
        if env is not None:
            made = environment_text(self.hello.env, env, passed=False)
        text = (
            b'mark out; ( %s; umask "$d_umask"; exec %s ) & d_pid=$!; mark pid $d_pid\n'
            b"{ wait $d_pid; } 2>/dev/null; d_code=$?\n"
            b"printf '%%s\\n' \"$d_n\" >&2; finish $d_code" % (made, words(argv))
        )
        until = None if timeout is None else time.monotonic() + timeout
        number = channel.ask(self._guarded(text))
        try:
            self._settle(channel)
            answer = channel.wait(number, until)
            err = channel.take_err(time.monotonic() + _ANSWER)
        except Silent:
            raise self._overdue(argv[0], timeout or 0.0) from None
        except Broken as broken:
            raise self._lost(broken) from None
        code = answer.code
        if code in _NOT_RUN and b"exec" in err and not answer.data("out"):
            why = err.decode("utf-8", "replace").strip().rpartition(": ")[2]
            raise HostError(f"cannot run {argv[0]}: {why}")
        return Completed(128 - code if code in _SIGNALLED else code, answer.data("out"), err)

    def _overdue(self, name: str, timeout: float) -> HostError:
        """End the command that runs there for too long: through a channel of its own."""
        channel = self._channel
        pid = channel.pid if channel is not None else None
        if pid is not None:
            try:
                run_line(self.master, f"kill -9 {pid}".encode(), timeout=_ANSWER)
            except HostError:
                pass
        # Its late answer would be taken for another's.
        self.close()
        return HostError(f"{name} did not answer within {timeout:g} s")

    def query(self, argv: Sequence[str], what: str, *, timeout: float) -> bytes:
        """See Host."""
        answer = self._ask(query_text(argv), timeout=timeout)
        if answer.code != 0:
            said = answer.data("out").decode("utf-8", "replace").strip().splitlines()
            raise HostError(f"{what}: {reason(said[-1])}" if said else what)
        return answer.data("out")

    def foresee(self, argv: Sequence[str]) -> None:
        """See Host."""
        self._foresee(query_text(argv))

    def foresee_survey(self, paths: Sequence[Path], links: Sequence[Path]) -> None:
        """See Host."""
        self._foresee(survey_text([os.fspath(p) for p in paths], [os.fspath(n) for n in links]))

    def foresee_read(self, path: Path, offset: int, limit: int) -> None:
        """See Host."""
        self._foresee(read_text(os.fspath(path), offset, limit))

    def do(self, argv: Sequence[str], what: str, *, timeout: float) -> None:
        """See Host."""
        self._do(done_text(b'umask "$d_umask"; ' + words(argv)), what, timeout=timeout)

    def put(self, folder: Path, files: Mapping[str, File]) -> None:
        """See Host."""
        self._do(put_text(os.fspath(folder), files), f"cannot write to {folder}")

    def read_many(self, paths: Sequence[Path]) -> list[Content | None]:
        """See Host."""
        return self.survey(paths, ())[0]

    def survey(
        self, paths: Sequence[Path], links: Sequence[Path]
    ) -> tuple[list[Content | None], list[bool]]:
        """See Host."""
        if not paths and not links:
            return [], []
        names = [os.fspath(path) for path in paths]
        text = survey_text(names, [os.fspath(link) for link in links])
        return self._surveyed(self._ask(text), names, links=bool(links))

    def _surveyed(
        self, answer: Answer, names: Sequence[str], *, links: bool
    ) -> tuple[list[Content | None], list[bool]]:
        frames = answer.frames
        alive: list[bool] = []
        if links:
            alive = parse_keepers(frames[0].data, answer.data("stats"), self.hello.boot)
            frames = frames[2:]
        return parse_look(frames, names), alive

    def read_from(self, path: Path, offset: int, limit: int) -> bytes | None:
        """See Host."""
        text = read_text(os.fspath(path), offset, limit)
        answer = self._ask(text, timeout=_ANSWER + limit / 100_000)
        if any(frame.tag == "none" for frame in answer.frames):
            return None
        return answer.data("data")

    def follow(self, path: Path, offset: int) -> FollowStream:
        """See Host."""
        self._open()
        return FollowStream(self.master, os.fspath(path), offset)

    def put_tree(self, archive: Iterable[bytes], folder: Path) -> None:
        """See Host."""
        parts = iter(archive)
        head = bytearray()
        whole = True
        for part in parts:
            head += part
            if len(head) > _INLINE:
                whole = False
                break
        name = os.fspath(folder)
        what = f"cannot write to {folder}"
        if not whole:
            if self._deferred:
                self._flush()
            self._open()
            send_tree(self.master, name, itertools.chain((bytes(head),), parts), what)
            return
        data, flags = bytes(head), b"-xopf"
        if self.hello.gzip:
            import zlib

            pack = zlib.compressobj(wbits=31)
            data, flags = pack.compress(data) + pack.flush(), b"-xozpf"
        text = unpack_text(name, printed(data) + b" | ", flags) + say_if_full(name)
        self._do(done_text(text), what)

    def list_folder(self, folder: Path) -> list[str]:
        """See Host."""
        answer = self._ask(words("names", os.fspath(folder)))
        _check(answer, f"cannot read {folder}")
        return [os.fsdecode(name) for name in answer.data("names").split(b"\0") if name]

    def delete(self, path: Path) -> None:
        """See Host."""
        text = done_text(words("erase", os.fspath(path)))
        self._do(text, f"cannot delete {path}", timeout=_DELETE)

    # Processes

    def spawn(self, argv: Sequence[str], *, env: Mapping[str, str], output: Path) -> int:
        """See Host."""
        hello = self.hello
        made = environment_text(hello.env, env, passed=True)
        out = quote(os.fspath(output))
        text = (
            b"if d_said=$(prepare_launch %s 2>&1); then find_setsid; mark pid_of\n"
            b'd_new=$( %s; launch %s %s ); d_code=$?; printf %%s "$d_new"; finish $d_code\n'
            b'[ -z "$d_new" ] || watch "$d_new" ""\n'
            b'else report 1 "$d_said"; fi' % (out, made, out, words(argv))
        )
        answer = self._ask(text, again=False)
        _check(answer, f"cannot start {argv[0]}")
        said = answer.data("pid_of")
        if not said.isdigit():
            raise HostError(f"cannot start {argv[0]} on {self.options.host}")
        if self._channel is not None:
            self._channel.watched.add(int(said))
        return int(said)

    def alive(self, processes: Sequence[ProcessId]) -> list[bool]:
        """See Host."""
        if not processes:
            return []
        answer = self._ask(words("living", [str(each.pid) for each in processes]))
        return parse_alive(answer.data("stats"), processes, self.hello.boot)

    def boot_id(self) -> str:
        """See Host. A host that has started anew has broken the connection before."""
        return self.hello.boot

    def signal(self, process: ProcessId, number: int) -> bool:
        """See Host."""
        if process.boot and process.boot != self.boot_id():
            return False
        text = words("strike", str(process.pid), process.started, str(number))
        return self._ask(text, again=False).code == 0

    def watch(self, processes: Sequence[ProcessId]) -> SshWatch:
        """See Host."""
        channel = self._open()
        for process in processes:
            if process.pid not in channel.watched:
                # What it answers is that it has ended, when it has.
                channel.tell(words("watch", str(process.pid), process.started))
                channel.watched.add(process.pid)
        return SshWatch(channel, processes)

    @contextmanager
    def forward(self, local: tuple[str, int] | Path, remote: tuple[str, int]) -> Iterator[None]:
        """See Host."""
        self._open()
        listen = os.fspath(local) if isinstance(local, Path) else address_text(*local)
        target = address_text(*remote)
        self.master.forward(listen, target)
        try:
            yield
        finally:
            self.master.cancel(listen, target)
            if isinstance(local, Path):
                local.unlink(missing_ok=True)

    @property
    def platform(self) -> str:
        """See Host."""
        return f"{self.hello.system}-{self.hello.machine}".lower()

    @property
    def uid(self) -> int:
        """See Host."""
        return self.hello.uid

    @property
    def environ(self) -> Mapping[str, str]:
        """See Host: that of the login session."""
        return self.hello.env

    def commands(self, names: Sequence[str]) -> dict[str, str]:
        """See Host."""
        script = 'for name; do command -v "$name" || echo; done'
        done = self.run(["/bin/sh", "-c", script, "sh", *names], timeout=_ANSWER)
        paths = os.fsdecode(done.out).splitlines()
        return {
            name: path for name, path in zip(names, paths, strict=False) if path.startswith("/")
        }

    def dial(self, path: str) -> None:
        """See Host."""

    def machine(self) -> None:
        """See Host: all of it is asked for together, with a script."""

    def find_uv(self) -> str | None:
        """See Host: on PATH, where its installer puts it, or below dstack's folder."""
        return self._uv or self.hello.uv or None

    def uv(self) -> str:
        """See Host: this machine's own is copied there."""
        found = self.find_uv()
        if found is None:
            from .ssh_uv import install_uv

            found = self._uv = install_uv(self)
        return found


class SshWatch:
    """See Watch. The end of a process is told over the channel that requests are answered on."""

    def __init__(self, channel: Channel, processes: Sequence[ProcessId]) -> None:
        self._channel = channel
        self._processes = frozenset(processes)

    def fileno(self) -> int:
        """See Watch."""
        return self._channel.fileno()

    def ended(self) -> set[ProcessId]:
        """See Watch."""
        self._channel.receive()
        if self._channel.broken is not None:
            return set(self._processes)
        return {each for each in self._processes if each.pid in self._channel.ended}

    def close(self) -> None:
        """See Watch. What waits there ends with its process, or with the channel."""


def _check(answer: Answer, what: str) -> None:
    if answer.code != 0:
        raise HostError(f"{what}: {reason(answer.error or '')}")
