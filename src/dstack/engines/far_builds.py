"""What a build stage left on another machine becomes a build there, by renames of a shell's.

The same layout as engines/builds.py makes on this machine; the record of it is kept here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import HostError, StoreError
from ..hosts.base import File, Host
from ..run.made import Made, Seen, made_of, names
from ..run.model import Plan
from .builds import LISTS, MARKERS, relative_caches

_READ = 4 << 20  # bytes asked for at once
_TIMEOUT = 600.0
# $1 the run's folder, $2 its job folder, $3 where the build is put together, $4 where it goes.
# `moves.sh`, which was put there, moves the files.
_TAKE = """
umask 077
if [ ! -d "$4" ]; then
    mkdir -p "$3/files" || exit 1
    if [ -e "$1/env" ] && [ ! -e "$3/env" ]; then mv "$1/env" "$3/env" || exit 1; fi
    for marker in {markers}; do rm -f "$3/env/$marker"; done
    [ ! -d "$1/code" ] || (cd "$1/code" && . "$3/moves.sh") || exit 1
    if [ -e "$2/box/image" ]; then cp "$2/box/image" "$3/base" || exit 1; fi
    rm -f "$3/moves.sh"
    : >"$3/build.json" && mv "$3" "$4" || exit 1
fi
du -sk "$4"
"""


def read_made(host: Host, plan: Plan, directory: Path) -> tuple[Made, bool]:
    """See builds.read_made. Raises HostError, StoreError."""
    lists = []
    for name in LISTS:
        data = _read(host, directory / f"build.{name}")
        if data is None:
            message = f"what the build read is not known: {directory}/build.{name} is not there"
            raise StoreError(message)
        lists.append(data)
    made = made_of(Seen(*map(names, lists)), relative_caches(plan))
    (whole,) = host.read_many([directory / "build.whole"])
    return made, whole is not None


def take_result(
    host: Host, folders: tuple[Path, Path], places: tuple[Path, Path], made: Made
) -> int:
    """See builds.take_result: `folders` are the run's and its job's, `places` aside and for good.

    The build's size in bytes. Doing it twice does no harm. Raises HostError, StoreError.
    """
    (there,) = host.read_many([places[1] / "build.json"])
    if there is None:
        gone = b"".join(b"./%b\0" % name for name in made.gone)
        files = {"gone": File(gone), "moves.sh": File(_moves(made.moves, places[0] / "files"))}
        host.put(places[0], files)
    words = [os.fspath(path) for path in (*folders, *places)]
    script = _TAKE.format(markers=" ".join(MARKERS))
    done = host.run(["/bin/sh", "-c", script, "sh", *words], timeout=_TIMEOUT)
    said = done.out.split()
    if done.code != 0 or not said or not said[0].isdigit():
        lines = done.err.decode("utf-8", "replace").strip().splitlines()
        message = f"what the build left cannot be kept on {host.name}"
        raise StoreError(f"{message}: {lines[-1]}" if lines else message)
    return int(said[0]) << 10


def _moves(moves: Iterable[bytes], files: Path) -> bytes:
    """The commands that move what the build left, from the run's code; some may be done."""
    target = os.fsencode(files)
    lines, made = [b":"], set[bytes]()
    for name in moves:
        parent = name.rpartition(b"/")[0]
        if parent not in made:
            made.add(parent)
            lines.append(b"mkdir -p %b" % _quote(target + b"/" + parent))
        source = _quote(b"./" + name)
        lines.append(
            b"{ [ ! -e %b ] && [ ! -L %b ]; } || mv %b %b || return"
            % (source, source, source, _quote(target + b"/" + name))
        )
    return b"\n".join(lines) + b"\n"


def _quote(text: bytes) -> bytes:
    return b"'" + text.replace(b"'", b"'\\''") + b"'"


def _read(host: Host, path: Path) -> bytes | None:
    found = b""
    while True:
        data = host.read_from(path, len(found), _READ)
        if data is None:
            return None
        found += data
        if len(data) < _READ:
            return found


def delete_build(host: Host, folder: Path) -> None:
    """Delete it; what is half deleted is no build. Raises HostError."""
    done = host.run(["/bin/sh", "-c", 'rm -f "$1/build.json"', "sh", os.fspath(folder)])
    if done.code != 0:
        message = f"{folder} cannot be deleted on {host.name}"
        raise HostError(message)
    host.delete(folder)
