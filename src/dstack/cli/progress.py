"""How far sending the code is, drawn on a terminal."""

from __future__ import annotations

from ..snapshot import Progress as Sent
from ..text import Progress


class SendingBar:
    """A bar for `Pending.finish`; use it as a context manager."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def __call__(self, sent: Sent) -> None:
        """Draw it."""
        if self._bar is None:
            self._bar = Progress("uploading", sent.total)
        self._bar.update(sent.done, sent.total)

    def __enter__(self) -> SendingBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
