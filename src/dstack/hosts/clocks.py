"""Another machine's clock, which may be any: what has to be added to its times."""

from __future__ import annotations

import time

from .base import Host

_TIMEOUT = 20.0


def shift_of(theirs: int, before: float, after: float) -> float:
    """Seconds to add, when the host said `theirs` between these two times of our clock. Pure.

    Theirs is in whole seconds. What the way may have taken is no difference of clocks.
    """
    return 0.0 if before - 1 <= theirs <= after else (before + after) / 2 - theirs - 0.5


def ask_shift(host: Host) -> float:
    """Seconds to add. One round trip. Raises HostError."""
    before = time.time()
    said = host.query(["date", "+%s"], "cannot read its clock", timeout=_TIMEOUT).strip()
    return shift_of(int(said), before, time.time()) if said.isdigit() else 0.0
