"""`dstack __complete KIND PREFIX`: what shell completion asks at every Tab, so it must be quick.

It never fails, says nothing and makes nothing: a Tab in a folder of garbage completes nothing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

HELP = "print the names that begin with a prefix, for completion"
_MOST = 500
# Names that a shell takes as they are: the others are not worth a completion that must be quoted.
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-+")


def configure(parser: argparse.ArgumentParser) -> None:
    """What follows `dstack __complete`."""
    parser.add_argument("kind", metavar="KIND")
    parser.add_argument("prefix", metavar="PREFIX", nargs="?", default="")


def run(args: argparse.Namespace) -> int:
    """Print names, one a line."""
    finders = {
        "runs": _runs,
        "secrets": _secrets,
        "profiles": _profiles,
        "backends": _backends,
    }
    try:
        names = finders[args.kind](args.prefix) if args.kind in finders else []
    except Exception:
        names = []
    for name in names:
        if name.startswith(args.prefix) and set(name) <= _SAFE and not name.startswith("-"):
            print(name)
    return 0


def _home() -> Path:
    """Dstack's folder, which is not made by asking."""
    given = os.environ.get("DSTACK_HOME")
    return Path(given).expanduser() if given else Path.home() / ".dstack"


def _ask(query: str, prefix: str) -> list[str]:
    """The first column. Opened for reading only, and gone after a moment if it is locked."""
    import sqlite3

    where = (_home() / "dstack.db").absolute().as_uri() + "?mode=ro"
    connection = sqlite3.connect(where, uri=True, timeout=0.5)
    try:
        bounds = {"prefix": prefix, "end": prefix + "\U0010ffff", "most": _MOST}
        return [str(row[0]) for row in connection.execute(query, bounds)]
    finally:
        connection.close()


def _runs(prefix: str) -> list[str]:
    """Newest first: what was started last is what is most likely meant."""
    query = (
        "SELECT name FROM runs WHERE name >= :prefix AND name < :end"
        " GROUP BY name ORDER BY max(seq) DESC LIMIT :most"
    )
    return _ask(query, prefix)


def _secrets(prefix: str) -> list[str]:
    query = (
        "SELECT name FROM secrets WHERE name >= :prefix AND name < :end ORDER BY name LIMIT :most"
    )
    return _ask(query, prefix)


def _profiles(_prefix: str) -> list[str]:
    """Names in the project's profiles, read without checking the rest of the file."""
    import yaml

    from .project import PROFILES, find_root

    root = find_root(Path.cwd())
    for path in (root / name for name in PROFILES if root):
        if path.is_file():
            loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
            tree = yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506 - builds text only
            return [str(profile["name"]) for profile in tree["profiles"]]
    return []


def _backends(_prefix: str) -> list[str]:
    from ..config.backends import load_backends

    config = _home() / "config.yml"
    source = config.read_bytes() if config.exists() else None
    return [backend.name for backend in load_backends(source, str(config))]
