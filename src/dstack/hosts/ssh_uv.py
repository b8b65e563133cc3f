"""Putting `uv` on a machine that has none: this machine's own, where it runs there."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HostError, HostUnreachable
from .local import LocalHost

if TYPE_CHECKING:
    from .ssh import SshHost

_HINT = "install uv there (https://docs.astral.sh/uv/), or run the task in an image"
_TRY = 60.0  # seconds that it has to say its version, on a disk that may be slow
_CHUNK = 1 << 18


def install_uv(host: SshHost) -> str:
    """Copy it to `bin` of dstack's folder there; its path. Raises HostError."""
    where = host.options.host
    mine = LocalHost().find_uv()
    here, hello = os.uname(), host.hello
    if mine is None or (here.sysname, here.machine) != (hello.system, hello.machine):
        there = f"{hello.system} {hello.machine}"
        message = f"{where} has no uv, and dstack brings none for {there}"
        raise HostError(message, hint=_HINT)
    place = host.root / "bin"
    # Two machines may do this at once: each has a folder of its own until it is all there.
    aside = place / f".uv-{os.urandom(6).hex()}"
    try:
        host.put_tree(_packed(Path(mine)), aside)
        done = host.run([os.fspath(aside / "uv"), "--version"], timeout=_TRY)
        if done.code != 0:
            said = done.err.decode("utf-8", "replace").strip().splitlines()
            raise HostError(said[-1] if said else f"it exits with {done.code}")
        host.run(["mv", "-f", os.fspath(aside / "uv"), os.fspath(place / "uv")])
    except HostUnreachable:
        raise
    except HostError as error:
        # What a shell says of a program whose loader is not there.
        why = "it needs glibc" if error.message.endswith("not found") else error.message
        message = f"{where} has no uv, and this machine's does not run there: {why}"
        raise HostError(message, hint=_HINT) from None
    finally:
        _forget(host, aside)
    return os.fspath(place / "uv")


def _forget(host: SshHost, aside: Path) -> None:
    try:
        host.delete(aside)
    except HostError:
        pass  # it broke off; what is left is a folder that nothing looks at


def _packed(program: Path) -> Iterator[bytes]:
    """A tar archive with the one file `uv`."""
    info = tarfile.TarInfo("uv")
    info.size, info.mode = program.stat().st_size, 0o755
    yield info.tobuf(tarfile.USTAR_FORMAT)
    with program.open("rb") as file:
        while part := file.read(_CHUNK):
            yield part
    yield bytes(-info.size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
