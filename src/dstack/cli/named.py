"""The runs that a command line names, all of them or none."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UsageError
from ..store.runs import Runs, Stored


def find_all(runs: Runs, names: Sequence[str], undone: str) -> list[Stored]:
    """The runs; `undone` says what was not done with any when one is not there: "stopped".

    Raises UsageError.
    """
    try:
        return [runs.find(name) for name in names]
    except UsageError as error:
        if len(names) == 1:
            raise
        raise UsageError(f"{error.message}; none was {undone}", hint=error.hint) from None
