"""Where the ports of a run lead, known for a while, and which of them others have."""

from __future__ import annotations

import time
from collections.abc import Callable

from .. import text
from ..engines.base import Address, Reach
from ..engines.reach import NOWHERE
from ..errors import HostError
from ..run.model import Run

_FOREIGN = 1.0  # seconds for which it holds that another process has a port


class Ways:
    """The ports of one run. For the forwarder's thread alone, but for `notices`.

    What was found holds for `hold` seconds.
    """

    def __init__(
        self,
        run: Callable[[], Run],
        ask: Callable[[Run, int], Reach],
        notices: list[str],
        *,
        hold: float,
    ) -> None:
        """`run` gives the run as it is now: a retry may be found at another address.

        `notices` gets a sentence for each port that belongs to another process, once.
        """
        self._run = run
        self._ask = ask
        self._notices = notices
        self._hold = hold
        self._known: dict[tuple[int, int], tuple[float, Reach]] = {}
        self._told: set[int] = set()

    def find(self, port: int) -> Address | None:
        """Where a run port is reached; None where it is not now."""
        run = self._run()
        if run.attempt is None or run.attempt.exit is not None:
            return None
        key = (run.attempt.number, port)
        until, reach = self._known.get(key, (0.0, NOWHERE))
        if time.monotonic() < until:
            return reach.address
        try:
            reach = self._ask(run, port)
        except (HostError, OSError):
            return None  # asked again for as long as who connects waits
        if reach.foreign is not None:
            self._tell(run, port, reach.foreign)
        # Where nobody listens yet somebody may at any moment.
        hold = self._hold if reach.address else _FOREIGN if reach.foreign is not None else 0.0
        self._known[key] = (time.monotonic() + hold, reach)
        return reach.address

    def _tell(self, run: Run, port: int, who: str) -> None:
        if port in self._told:
            return
        self._told.add(port)
        name, _, pid = who.rpartition(" ")
        whose = f" ({text.plain(name)}, process {pid})" if name else ""
        where = "this machine" if run.plan.remote is None else run.plan.backend
        local = dict(run.ports).get(port, port)
        self._notices.append(
            f"port {port} of {where} belongs to another process{whose}: "
            f"127.0.0.1:{local} does not lead there"
        )
