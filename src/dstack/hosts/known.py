"""What hosts said the last time, kept on this machine: it saves waiting for it to be said again."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ..digest import digest
from .ssh_options import SshOptions
from .ssh_requests import Hello


def _path(options: SshOptions, state: Path) -> Path:
    return state / "hosts" / f"{digest(repr(options).encode())[:16]}.json"


def recall(options: SshOptions, state: Path) -> Hello | None:
    """What the host said last; its environment is not kept."""
    try:
        return msgspec.json.decode(_path(options, state).read_bytes(), type=Hello)
    except (OSError, msgspec.DecodeError):
        return None


def remember(options: SshOptions, state: Path, hello: Hello) -> None:
    """Keep it. Without it everything works, and takes a round trip more."""
    path = _path(options, state)
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        aside.write_bytes(msgspec.json.encode(msgspec.structs.replace(hello, env={})))
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
