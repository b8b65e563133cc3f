"""The requests that channel.sh answers, as shell text, and how its answers are read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ..errors import HostError
from .base import Content, File, ProcessId
from .environment import passed_through

_UNSAFE = re.compile(rb"[^A-Za-z0-9_@%+=:,./-]")
# A backslash starts an escape of printf's %b; bytes beyond ASCII mean different things in different
# locales, and a zero byte nothing to a shell.
_ESCAPED = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f-\xff\\]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a shell says about itself, and does not let go of.
_KEPT = frozenset("BASHOPTS BASH_VERSINFO EUID PPID SHELLOPTS UID IFS _".split())  # noqa: SIM905
# A line of /proc/PID/stat; the name in it may hold anything, but no more than 15 characters.
_STAT = re.compile(rb"^(\d+) \(.*?\) (\w)((?: -?\d+){19,})$", re.MULTILINE | re.DOTALL)
_GONE_STATES = ("Z", "X")


class Frame(msgspec.Struct, frozen=True):
    """One part of an answer: what `mark` said, and the bytes behind it."""

    tag: str
    data: bytes = b""


class Hello(msgspec.Struct, frozen=True):
    """Who and where we are on a host; `system` and `machine` are uname's, `uv` may be empty.

    `aes`: whether its processor has instructions for AES; None when it was not asked.
    """

    root: str
    home: str
    uid: int
    system: str
    machine: str
    boot: str
    gzip: bool
    uv: str
    env: Mapping[str, str]
    aes: bool | None = None


def quote(text: str | bytes) -> bytes:
    """One word for a POSIX shell."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    if b"\0" in data:
        raise HostError("a zero byte cannot be part of a command or a path")
    if data and not _UNSAFE.search(data):
        return data
    return b"'" + data.replace(b"'", b"'\\''") + b"'"


def words(*parts: str | bytes | Iterable[str]) -> bytes:
    """Words for a shell, quoted where they need it."""
    out: list[bytes] = []
    for part in parts:
        out += [quote(part)] if isinstance(part, str | bytes) else map(quote, part)
    return b" ".join(out)


def printed(data: bytes) -> bytes:
    """A command that prints exactly these bytes; built into every shell, so in no process list."""
    escaped = _ESCAPED.sub(lambda found: b"\\0%03o" % found.group()[0], data)
    return b"printf %b '" + escaped.replace(b"'", b"'\\''") + b"'"


def put_text(folder: str, files: Mapping[str, File]) -> bytes:
    """Write files aside, then move them to their places."""
    aside = f"{folder}/.new"
    steps = [b"d_aside=" + quote(aside) + b'$$ && mkdir -p "$d_aside"']
    for name, file in files.items():
        if "/" in name or name in ("", ".", "..", "--"):
            raise HostError(f'"{name}" is not the name of a file')
        there = b'"$d_aside"/' + quote(name)
        steps.append(printed(file.data) + b" >" + there)
        if file.mode != 0o600:
            steps.append(b"chmod %o " % file.mode + there)
    moved = [name for name, file in files.items() if not file.keep]
    kept = [name for name, file in files.items() if file.keep]
    steps.append(words("place", folder, moved, "--", kept))
    return done_text(b" && ".join(steps) + say_if_full(folder))


def say_if_full(folder: str) -> bytes:
    """What follows a command that writes there: when it failed, say whether the disk is full.

    Shells and tar often say only that they could not write; `cat` says why.
    """
    probe = quote(f"{folder}/.probe") + b"$$"
    return b" || { head -c 65536 /dev/zero | cat >%s; rm -f %s; false; }" % (probe, probe)


def reason(said: str) -> str:
    """The line that says most about why something failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for word in ("No space left", "quota exceeded"):
        for line in lines:
            if word in line:
                return line.rpartition(": ")[2]
    # tar's last line says only that something went wrong before.
    first = next((line for line in lines if line.startswith("tar:")), None)
    return first or (lines[-1] if lines else "it failed and does not say why")


def done_text(command: bytes) -> bytes:
    """A command that is only done: its answer is what went wrong."""
    return b"d_said=$( { " + command + b'\n} 2>&1 ); report $? "$d_said"'


def unpack_text(folder: str, archive: bytes, flags: bytes) -> bytes:
    """Unpack what `archive`, a command and a `|` or nothing, gives to tar's stdin.

    Modes are the archive's: GNU's tar takes them as they are, busybox's without what umask takes.
    """
    place = quote(folder)
    return b"umask 077; mkdir -p %s && umask 022 && %star %s - -C %s" % (
        place,
        archive,
        flags,
        place,
    )


def environment_text(own: Mapping[str, str], env: Mapping[str, str], *, passed: bool) -> bytes:
    """Make the environment of a subshell exactly `env`; `passed`: and what a host passes through.

    `own` is the login session's. Values never stand in an argument list.
    """
    kept = passed_through(own) if passed else {}
    gone = [n for n in own if n not in kept and n not in _KEPT and _NAME.fullmatch(n)]
    steps = [b"unset " + words(gone)] if gone else []
    for name, value in env.items():
        if not _NAME.fullmatch(name):
            raise HostError(f'"{name}" is not the name of a variable')
        steps.append(name.encode() + b"=" + quote(value) + b" && export " + name.encode())
    return b"; ".join(steps) or b":"


def query_text(argv: Sequence[str]) -> bytes:
    """Run a command; what it prints, to whichever stream, is the answer's part `out`."""
    return b'mark out; ( umask "$d_umask"; exec %s ) 2>&1; finish $?' % words(argv)


def survey_text(names: Sequence[str], links: Sequence[str]) -> bytes:
    """What lies there, and who lives."""
    text = words("look", names)
    return words("keepers", links) + b"; " + text if links else text


def read_text(name: str, offset: int, limit: int) -> bytes:
    """A part of a file, and how large that was before."""
    path = quote(name)
    tail = b"tail -c +%d %s | head -c %d" % (offset + 1, path, limit)
    size = b"stat -L -c %%s %s" % path
    return b"if [ -r %s ]; then mark size; %s; mark data; %s; else mark none; fi; finish 0" % (
        path,
        size,
        tail,
    )


def parse_hello(frames: Sequence[Frame]) -> Hello:
    """Raises HostError when the root cannot be used, or the answer is none."""
    said = {frame.tag.partition(" ")[0]: frame for frame in frames}
    if "error" in said:
        message = said["error"].tag.partition(" ")[2]
        raise HostError(message, hint="name another folder with `root` in config.yml")

    def text(tag: str) -> str:
        found = said.get(tag)
        return found.data.decode("utf-8", "surrogateescape") if found else ""

    system = text("system").split()
    uid = text("uid").strip()
    if not text("root").startswith("/") or not uid.isdigit() or len(system) < 2:
        raise HostError("the shell there does not answer as a POSIX shell would")
    if not text("tar").strip():
        raise HostError("there is no tar on it", hint="install it there: code is sent with it")
    return Hello(
        root=text("root").rstrip("/") or "/",
        home=text("home"),
        uid=int(uid),
        system=system[0],
        machine=system[1],
        boot=text("boot").strip(),
        gzip=bool(text("gzip").strip()),
        uv=text("uv"),
        env=_variables(text("env")),
        aes=bool(text("aes").strip()) if "aes" in said else None,
    )


def _variables(text: str) -> dict[str, str]:
    """What `env` printed. A value of several lines is cut; only the names are relied upon."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and _NAME.fullmatch(name):
            found[name] = value
    return found


def parse_look(frames: Sequence[Frame], paths: Sequence[str]) -> list[Content | None]:
    """What `look` found of each path. Raises HostError for what cannot be read."""
    times: dict[bytes, float] = {}
    parts: list[Frame] = []
    for frame in frames:
        kind, _, why = frame.tag.partition(" ")
        if kind == "times":
            times = _times(frame.data, paths)
        elif kind == "error":
            if parts and parts[-1].tag == "file" and why == "cannot be read":
                parts.pop()
            raise HostError(f"cannot read {paths[len(parts)]}: {why}")
        else:
            parts.append(frame)
    if len(parts) != len(paths):
        raise HostError("the host's answer does not fit the question")
    found: list[Content | None] = []
    for part, path in zip(parts, paths, strict=True):
        at = times.get(path.encode("utf-8", "surrogateescape"))
        if part.tag == "missing" or at is None:
            found.append(None)
        elif part.tag == "link":
            found.append(Content(part.data[:-1], at))
        else:
            found.append(Content(part.data, at))
    return found


def parse_read(frames: Sequence[Frame], offset: int, limit: int) -> bytes | None:
    """What `read_text` asked for; None: there is no such file, or none that can be read.

    Raises HostError when something is missing: what reads there may have been killed.
    """
    said = {frame.tag: frame.data for frame in frames}
    if "none" in said:
        return None
    data, size = said.get("data", b""), said.get("size", b"").strip()
    if len(data) < min(limit, int(size or 0) - offset):
        raise HostError("the host did not send all that it was asked for")
    return data


def _times(data: bytes, paths: Sequence[str]) -> dict[bytes, float]:
    """`TIME PATH` of those that were there, in their order; a newline in a name is part of it."""
    times: dict[bytes, float] = {}
    at = 0
    for path in paths:
        name = path.encode("utf-8", "surrogateescape")
        found = re.compile(rb"([0-9.]+) " + re.escape(name) + rb"\n").match(data, at)
        if found:
            times[name] = float(found.group(1))
            at = found.end()
    return times


def parse_alive(stats: bytes, processes: Sequence[ProcessId], boot: str) -> list[bool]:
    """Which of the processes are among the lines of /proc/PID/stat."""
    started: dict[int, tuple[str, str]] = {}
    for found in _STAT.finditer(stats):
        fields = found.group(3).split()
        started[int(found.group(1))] = (found.group(2).decode(), fields[18].decode())
    alive = []
    for process in processes:
        state, since = started.get(process.pid, ("X", ""))
        same_boot = not process.boot or process.boot == boot
        same = not process.started or process.started == since
        alive.append(same_boot and same and state not in _GONE_STATES)
    return alive


def parse_keepers(links: bytes, stats: bytes, boot: str) -> list[bool]:
    """Whether the process lives that each link names, a line each; an empty one names none."""
    alive = []
    for line in links.decode("utf-8", "replace").split("\n")[:-1]:
        try:
            alive += parse_alive(stats, [ProcessId.parse(line)], boot)
        except ValueError:
            alive.append(False)
    return alive


def address_text(host: str, port: int) -> str:
    """An address as `ssh -L` takes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
