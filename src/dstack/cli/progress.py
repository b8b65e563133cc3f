"""How far sending the code is, drawn on a terminal."""

from __future__ import annotations

import sys

from ..snapshot import Progress as Sent
from ..text import Progress, is_terminal, plain, say, shorten, terminal_columns


class SendingBar:
    """A bar for `Pending.finish`; use it as a context manager."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def __call__(self, sent: Sent) -> None:
        """Draw it."""
        if self._bar is None:
            self._bar = Progress("uploading", sent.total)
        self._bar.update(sent.done, sent.total)
        if sent.done >= sent.total:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> SendingBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class PullBar:
    """A line on a terminal that says how far pulling an image is; elsewhere one line, once."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._live = is_terminal(sys.stderr)
        if not self._live:
            say(f"pulling {image}")

    def update(self, step: str) -> None:
        """Draw `pulling DONE/TOTAL`, counted in layers."""
        if not self._live:
            return
        done, _, total = step.removeprefix("pulling ").partition("/")
        width = 20
        full = width * int(done) // max(int(total), 1)
        bar = "#" * full + "-" * (width - full)
        layers = f"[{bar}] {done} of {total} layers" if int(total) else ""
        room = (terminal_columns(sys.stderr) or 80) - 1
        line = shorten(f"pulling {plain(self._image)}  {layers}", room)
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()

    def close(self) -> None:
        """Wipe the line."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
