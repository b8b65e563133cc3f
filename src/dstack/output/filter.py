"""What stands between a run's log and the screen: secrets masked, addresses made local.

shown = make_filter(secrets=["hunter2"], ports=[(8000, 3333)])
write(shown.feed(chunk)) ...; write(shown.idle()) after a silence; write(shown.flush()) at the end
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .masking import Masker, needles


class Filter:
    """Masks secrets, then rewrites addresses; what comes out does not depend on the chunks."""

    def __init__(self, secrets: Iterable[str | bytes], ports: Sequence[tuple[int, int]]) -> None:
        values = needles(secrets)
        self._masker = Masker(values) if values else None
        self._rewriter = None
        if ports:
            from .addresses import Rewriter

            self._rewriter = Rewriter(ports, _machine_names())

    @property
    def holding(self) -> bool:
        """Whether `idle` would show something."""
        return self._rewriter is not None and self._rewriter.holding

    def feed(self, data: bytes) -> bytes:
        """What can be shown after `data` came: all but what may still become a match."""
        if self._masker is not None:
            data = self._masker.feed(data)
        if self._rewriter is not None:
            data = self._rewriter.feed(data)
        return data

    def idle(self) -> bytes:
        """What is held only because an address may go on; call it after some 100 ms of silence.

        What may be the beginning of a secret stays held.
        """
        return self._rewriter.flush() if self._rewriter is not None else b""

    def flush(self) -> bytes:
        """Everything that is still held, at the end of the output."""
        rest = self._masker.flush() if self._masker is not None else b""
        if self._rewriter is not None:
            rest = self._rewriter.feed(rest) + self._rewriter.flush()
        return rest


def make_filter(
    secrets: Iterable[str | bytes] = (), ports: Iterable[tuple[int, int]] = ()
) -> Filter | None:
    """A filter for these secrets and (run, local) ports; None when there is nothing to do.

    None matters: output is then copied by the kernel alone.
    """
    values = [value for value in secrets if value]
    pairs = tuple(ports)
    return Filter(values, pairs) if values or pairs else None


def _machine_names() -> tuple[str, ...]:
    """This machine's name, as apps print it (Jupyter does), long and short."""
    import os

    name = os.uname().nodename
    return tuple({name, name.partition(".")[0]} - {""})
