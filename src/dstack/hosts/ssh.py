"""A machine that the user's own `ssh` reaches; it needs a POSIX shell, its companions, and tar."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import HostError
from .base import Completed, Content, File, ProcessId
from .channel import Answer, Broken, Silent
from .ssh_connection import ANSWER, SshConnection, check_done, done_or_skipped
from .ssh_requests import (
    address_text,
    done_text,
    environment_text,
    parse_alive,
    parse_keepers,
    parse_look,
    parse_read,
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
from .ssh_streams import FollowStream, SshWatch, run_line, send_tree

_DELETE = 600.0  # seconds that deleting may take
_INLINE = 1 << 16  # bytes of an archive that are not worth a channel of their own
_NOT_RUN = (126, 127)  # what a shell exits with when it cannot run a command
_SIGNALLED = range(129, 193)


class SshHost(SshConnection):
    """See Host."""

    _uv: str | None = None

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
            answer = done_or_skipped(channel.wait(number, until))
            err = channel.take_err(time.monotonic() + ANSWER)
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
                run_line(self.master, f"kill -9 {pid}".encode(), timeout=ANSWER)
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
        self._do(put_text(os.fspath(folder), files), f"cannot write to {folder} on {self.name}")

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
        answer = self._ask(text, timeout=ANSWER + limit / 100_000)
        return parse_read(answer.frames, offset, limit)

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
        what = f"cannot write to {folder} on {self.name}"
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
        check_done(answer, f"cannot read {folder}")
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
        check_done(answer, f"cannot start {argv[0]}")
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
    def near(self) -> bool:
        """See Host."""
        return False

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
        done = self.run(["/bin/sh", "-c", script, "sh", *names], timeout=ANSWER)
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
