"""How things are printed: data to stdout, talk to stderr, nothing that a terminal would obey.

Everything here is on the path of every command, so what is heavy is imported where it is used.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # the name is enough for type checkers, and `typing` costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import TextIO

# SGR numbers of ECMA-48, section 8.3.117.
_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_GAP = "  "
_NARROW = (8, 3)  # columns that a shrunk cell keeps: while that is enough, and at worst
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


# --- values ---------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A length of time in its two largest units: `5s`, `3m 20s`, `2h 5m`, `3d`.

    Less than nothing (a clock that was moved back) is `0s`.
    """
    whole = max(0, int(seconds))
    for large, unit, small, subunit in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "m"),
        (_MINUTE, "m", 1, "s"),
    ):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large}{unit}" + (f" {rest}{subunit}" if rest else "")
    return f"{whole}s"


def ago(at: float, now: float) -> str:
    """How long before `now` something was, in one unit: `3m ago`; `just now` under a second."""
    passed = int(now - at)
    if passed < 1:
        return "just now"
    return duration(passed).split(" ")[0] + " ago"


def size(count: float) -> str:
    """Bytes for people, in powers of 1024 as memory is sold: `12 B`, `1.2 GB`, `24 GB`."""
    amount = float(count)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        # Rounded first, so that 1023.99 KB is 1 MB and never 1024 KB.
        shown = round(amount, 1) if amount < 10 else round(amount)
        if abs(shown) < 1024:
            return f"{shown:g} {unit}"
        amount /= 1024
    return f"{round(amount, 1):g} PB"


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC with milliseconds: `2024-05-01T12:00:00.250Z`."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"


def plain(text: str, *, keep: str = "") -> str:
    r"""The same text with what a terminal would obey shown instead of sent.

    Controls, text-direction marks and bytes that are no text become `\n`, `\x1b`, `\u202e`;
    the characters in `keep` stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in keep or _is_joiner(char)
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _is_joiner(char: str) -> bool:
    # What holds letters or emoji together, and spaces of another width, do no harm.
    return char in "\u00a0\u200c\u200d\u202f\u3000"


def width(text: str) -> int:
    """How many columns a terminal gives to a text."""
    if text.isascii():
        return len(text)
    import unicodedata

    columns = 0
    for char in text:
        if unicodedata.category(char) in {"Mn", "Me", "Cf"}:
            continue  # drawn over, or not at all
        columns += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return columns


def shorten(text: str, columns: int) -> str:
    """The text, cut to so many columns with an ellipsis where it is longer."""
    if width(text) <= columns:
        return text
    kept, used = [], 0
    for char in text:
        used += width(char)
        if used > columns - 1:
            break
        kept.append(char)
    return "".join(kept).rstrip() + "…"


# --- tables ---------------------------------------------------------------------------------


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, columns: int | None = 0) -> str:
    """Rows under headers, one line each, without a last newline.

    `columns` is how wide it may be: the last column gives way first, then the widest of the
    others, the first one (the name, which people copy) never. None leaves everything as long as
    it is; 0 is what stdout needs: the terminal's width, or None where it is piped.
    """
    if columns == 0:
        columns = terminal_columns(sys.stdout)
    cells = [[plain(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(width(row[i]) for row in cells) for i in range(len(headers))]
    if columns is not None:
        _fit(widths, columns)
    lines = []
    for row in cells:
        shown = [shorten(cell, wide) for cell, wide in zip(row, widths, strict=True)]
        padded = (c + " " * (wide - width(c)) for c, wide in zip(shown, widths, strict=True))
        lines.append(_GAP.join(padded).rstrip())
    return "\n".join(lines)


def _fit(widths: list[int], columns: int) -> None:
    """Shrink widths in place until the line fits, or until nothing more can give way."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - columns
    middle = sorted(range(1, len(widths) - 1), key=lambda i: -widths[i])
    for narrowest in _NARROW:
        for i in ([len(widths) - 1] if len(widths) > 1 else []) + middle:
            if excess <= 0:
                return
            given = max(0, min(excess, widths[i] - narrowest))
            widths[i] -= given
            excess -= given


def terminal_columns(stream: TextIO | None) -> int | None:
    """How wide the terminal behind a stream is; None when it is not one.

    80 where the terminal does not say, as some serial lines and test terminals do not.
    """
    if stream is None or not is_terminal(stream):
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


# --- streams --------------------------------------------------------------------------------


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is an open terminal. Python has None where a descriptor is closed."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed since
        return False


def has_colour(stream: TextIO | None) -> bool:
    """Whether to colour what goes there: terminals, unless `NO_COLOR` or `TERM` say otherwise.

    https://no-color.org: set and not empty means no colour.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return is_terminal(stream)


def paint(text: str, colour: str, stream: TextIO | None) -> str:
    """The text in a colour (`bold`, `dim`, `red`, `green`, `yellow`, `cyan`), where it has any."""
    if not has_colour(stream):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def show(text: str) -> None:
    """Data to stdout, as whole lines. What its encoding cannot say is escaped and does not fail."""
    if sys.stdout is None:
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("…", "...")
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def say(message: str, *, colour: str | None = None) -> None:
    """Talk, a line (or several) to stderr at once."""
    shown = plain(message, keep="\n\t")
    _talk(paint(shown, colour, sys.stderr) if colour else shown)


def warn(message: str) -> None:
    """`warning: ...` to stderr."""
    _labelled("warning:", "yellow", message)


def error(message: str, hint: str | None = None) -> None:
    """`error: ...` to stderr, and `hint: ...` below it."""
    _labelled("error:", "red", message)
    if hint:
        _labelled("hint:", "cyan", hint)


def _labelled(label: str, colour: str, message: str) -> None:
    _talk(f"{paint(label, colour, sys.stderr)} {plain(message, keep=chr(10) + chr(9))}")


def _talk(line: str, end: str = "\n") -> None:
    if sys.stderr is not None:
        sys.stderr.write(line + end)
        sys.stderr.flush()


# --- questions ------------------------------------------------------------------------------


def ask(question: str, choices: Sequence[str], *, default: str | None = None) -> str | None:
    """Ask for one of some words, or the beginning of one that fits no other; say which.

    Enter alone is `default`. None where there is nobody to ask (input is no terminal) or no answer
    (its end). KeyboardInterrupt passes through.
    """
    if not is_terminal(sys.stdin):
        return None
    shown = "/".join(choice.upper() if choice == default else choice for choice in choices)
    while True:
        _talk(f"{plain(question)} [{shown}] ", end="")
        line = sys.stdin.readline()
        if not line:
            _talk("")
            return None
        answer = line.strip().lower()
        if not answer and default is not None:
            return default
        fitting = [choice for choice in choices if answer and choice.lower().startswith(answer)]
        if answer in fitting or len(fitting) == 1:
            return answer if answer in fitting else fitting[0]
        _talk(f"Please answer with one of: {', '.join(choices)}")


def confirm(question: str, *, yes: bool) -> bool:
    """Whether to go on: `yes` (`-y`) and input that is no terminal answer for the user."""
    if yes or not is_terminal(sys.stdin):
        return True
    return ask(question, ("yes", "no"), default="no") == "yes"


# --- progress -------------------------------------------------------------------------------


class Progress:
    """One line on a terminal that says how much is done; silent where there is none.

    `total` is in bytes, None when it is not known. Nothing is drawn in the first `delay` seconds,
    so that quick work does not flicker. Use it as a context manager: the line is wiped at the end.
    """

    INTERVAL = 0.1  # seconds between two drawings

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        stream: TextIO | None = None,
        delay: float = 0.3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label = plain(label)
        self.total = total
        self.done = 0
        self._stream = sys.stderr if stream is None else stream
        self._live = is_terminal(self._stream) and os.environ.get("TERM", "dumb") != "dumb"
        self._clock = clock
        self._began = clock()
        self._next = self._began + delay
        self._drawn = False

    def advance(self, count: int) -> None:
        """So many bytes more are done."""
        self.update(self.done + count)

    def update(self, done: int, total: int | None = None) -> None:
        """So many bytes are done in all; `total` replaces what was known before."""
        self.done = done
        if total is not None:
            self.total = total
        if self._live and (now := self._clock()) >= self._next:
            self._next = now + self.INTERVAL
            self._drawn = True
            room = (terminal_columns(self._stream) or 80) - 1
            self._write("\r" + shorten(self.line(now), room) + "\x1b[K")

    def line(self, now: float) -> str:
        """What is drawn: `uploading  52 MB of 104 MB  50%  26 MB/s  2s left`."""
        parts = [self.label, size(self.done)]
        speed = self.done / max(now - self._began, 0.001)
        if self.total:
            parts[1] += f" of {size(self.total)}"
            parts.append(f"{min(100, self.done * 100 // self.total)}%")
        parts.append(f"{size(speed)}/s")
        if self.total and speed:
            parts.append(f"{duration(max(0, self.total - self.done) / speed)} left")
        return _GAP.join(parts)

    def close(self) -> None:
        """Wipe the line."""
        if self._drawn:
            self._drawn = False
            self._write("\r\x1b[K")

    def _write(self, drawing: str) -> None:
        self._stream.write(drawing)
        self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
