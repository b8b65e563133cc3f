"""The backends that there are, and those that a run goes to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ..config.backends import Backend, load_backends
from ..config.load import read_file
from ..errors import DstackError, UsageError
from ..paths import Home
from ..store.parsed import ParsedFiles

if TYPE_CHECKING:
    from ..supervise.sites import Sites


def candidates(names: Sequence[str], home: Home, memory: ParsedFiles | None) -> list[Backend]:
    """Those of these names, in their order; without names the default one, or the first.

    Raises UsageError for one that is not there, FileErrors.
    """
    path = home.config
    source = read_file(path, str(path)) if path.exists() else None
    known = {each.name: each for each in load_backends(source, str(path), memory)}
    for name in names:
        if name not in known:
            message = f"there is no backend {name}"
            raise UsageError(message, hint=f"backends: {', '.join(known)}")
    if names:
        return [known[name] for name in names]
    chosen = [each for each in known.values() if each.default]
    return chosen[:1] or list(known.values())[:1]


def hasten(names: Sequence[str], home: Home, memory: ParsedFiles | None) -> Sites:
    """The sites, of which that is being connected to where a run probably goes.

    Python has yet to import what plans the run; ssh can connect meanwhile. What is wrong is said
    when the run is planned, and its file or profile may name another backend.
    """
    from ..supervise.sites import Sites

    sites = Sites(home)
    with suppress(DstackError):
        sites.hasten(candidates(names, home, memory)[0])
    return sites
