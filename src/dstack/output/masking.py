"""Masking secrets in a stream of bytes, whatever its chunks."""

from __future__ import annotations

from collections.abc import Iterable

MASK = b"***"

# A line of a secret is masked by itself when it is longer than this: `}` or `abc` is everywhere.
SHORT_LINE = 3


def needles(values: Iterable[str | bytes]) -> tuple[bytes, ...]:
    """What has to be masked so that none of `values` is shown, longest first.

    Each value as a whole, without the line ends around it; of a value of several lines (a private
    key, a JSON document) each line longer than 3 bytes too, so that it is masked when it is
    printed indented or line by line. Empty values mask nothing.
    """
    found: set[bytes] = set()
    for value in values:
        whole = (value.encode() if isinstance(value, str) else value).strip(b"\r\n")
        lines = whole.splitlines()
        if len(lines) > 1:
            stripped = (line.strip() for line in lines)
            found.update(line for line in stripped if len(line) > SHORT_LINE)
        if whole:
            found.add(whole)
    return tuple(sorted(found, key=lambda needle: (-len(needle), needle)))


class Masker:
    """Replaces every stretch that secrets cover by `***`.

    Secrets that overlap in the text are one stretch. The result does not depend on how the text
    is cut. Held back is the longest end of the text that a secret may begin with, never more.
    """

    def __init__(self, values: tuple[bytes, ...]) -> None:
        self._needles = values
        self._held = b""
        self._covered = 0  # so many of the held bytes stand behind a `***` that was shown already

    def feed(self, data: bytes) -> bytes:
        """What can be shown after `data` came."""
        text = self._held + data if self._held else data
        hold = len(text) - self._longest_beginning(text)
        spans = self._spans(text)
        if not spans and not self._covered:
            self._held = text[hold:]
            return text if hold == len(text) else text[:hold]
        shown, covered = self._mask(text, spans, hold)
        self._held = text[hold:]
        self._covered = max(0, covered - hold)
        return shown

    def flush(self) -> bytes:
        """The rest, when nothing more will come."""
        text = self._held
        # A whole needle may be held because a longer one begins like it.
        shown, _ = self._mask(text, self._spans(text), len(text))
        self._held, self._covered = b"", 0
        return shown

    def _mask(self, text: bytes, spans: list[tuple[int, int]], hold: int) -> tuple[bytes, int]:
        """`text` up to `hold` with `spans` masked, and where the last mask ends."""
        parts: list[bytes] = []
        end = self._covered
        for start, stop in spans:
            # A span that begins behind `hold` is not shown yet: it is found again next time.
            if start >= hold and start >= end:
                break
            if start >= end:
                parts.append(text[end:start])
                parts.append(MASK)
            end = max(end, stop)
        if end < hold:
            parts.append(text[end:hold])
        return b"".join(parts), end

    def _spans(self, text: bytes) -> list[tuple[int, int]]:
        """Where needles stand in `text`, also those that overlap, in the order they begin."""
        spans: list[tuple[int, int]] = []
        for needle in self._needles:
            at = text.find(needle)
            while at >= 0:
                spans.append((at, at + len(needle)))
                at = text.find(needle, at + 1)
        spans.sort()
        return spans

    def _longest_beginning(self, text: bytes) -> int:
        """The length of the longest end of `text` that is a needle's beginning, not all of it."""
        longest = 0
        for needle in self._needles:
            if len(needle) - 1 <= longest:
                break  # needles come longest first
            at = max(0, len(text) - len(needle) + 1)
            first = needle[:1]
            while (at := text.find(first, at, len(text) - longest)) >= 0:
                if needle.startswith(text[at:]):
                    longest = len(text) - at
                    break
                at += 1
        return longest
