"""The output of a run as one text: its attempts' logs, one after the other."""

from __future__ import annotations

import os
from pathlib import Path

from .filter import Filter
from .follow import LogReader
from .tail import tail_offset
from .times import INDEX, Sampler, Stamper, offset_since, read_times

LOG = "log"


class Position:
    """A place in a run's output: the attempt (from 1) and the offset in its log."""

    __slots__ = ("attempt", "offset")

    def __init__(self, attempt: int, offset: int) -> None:
        self.attempt = attempt
        self.offset = offset


class RunLog:
    """The logs of the run whose folder this is; attempts may still be added to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def logs(self) -> list[tuple[int, Path]]:
        """(attempt, its log) of all attempts there are, the first one first."""
        return [(number, self.folder / str(number) / LOG) for number in sorted(self._numbers())]

    def after(self, attempt: int) -> int | None:
        """The attempt that follows this one, if there is one yet."""
        # Asked many times a second while a run is watched.
        return min((number for number in self._numbers() if number > attempt), default=None)

    def _numbers(self) -> list[int]:
        try:
            return [int(name) for name in os.listdir(self.folder) if name.isdigit()]
        except OSError:
            return []

    def start(self) -> Position:
        """Where the output begins."""
        return Position(0, 0)

    def end(self) -> Position:
        """Where the output ends now."""
        logs = self.logs()
        if not logs:
            return self.start()
        attempt, log = logs[-1]
        return Position(attempt, tail_offset(log, 0)[0])

    def tail(self, lines: int) -> Position:
        """Where the last `lines` lines begin, over all attempts."""
        if lines <= 0:
            return self.end()
        position = self.start()
        for attempt, log in reversed(self.logs()):
            offset, found = tail_offset(log, lines)
            position = Position(attempt, offset)
            lines -= found
            if lines <= 0:
                break
        return position

    def since(self, time: float) -> Position:
        """Where the first line begins that was printed at or after `time` (seconds, epoch)."""
        position = self.start()
        for attempt, log in self.logs():
            offset = offset_since(log, time)
            position = Position(attempt, offset)
            if offset < tail_offset(log, 0)[0]:
                break
        return position


class RunReader:
    """Reads a run's output from a position on, going on to each attempt as it appears.

    `stamped` puts the time before each line.
    """

    def __init__(
        self, run: RunLog, position: Position | None = None, *, stamped: bool = False
    ) -> None:
        self.run = run
        at = position or run.start()
        self._attempt = at.attempt
        self._stamped = stamped
        self._truncated = 0
        self._open(at.attempt, at.offset)

    @property
    def position(self) -> Position:
        """Where the next byte is read."""
        return Position(self._attempt, self._reader.offset)

    @property
    def truncated(self) -> int:
        """How often a log was found shorter than what had been read of it."""
        return self._truncated + self._reader.truncated

    @property
    def log(self) -> Path | None:
        """The log that is read now; None before there is an attempt."""
        return self._reader.path if self._attempt else None

    def close(self) -> None:
        """Close what is open."""
        self._reader.close()

    def copy_to(self, fd: int, shown: Filter | None = None) -> int:
        """Write what is there now to `fd`, of all attempts; how many bytes of the logs it was.

        As LogReader.copy_to, which see for what it raises. Call `shown.flush()` at the end.
        """
        copied = 0
        while True:
            # Looked for before copying: when there is a next attempt, this log is complete.
            following = self.run.after(self._attempt)
            if self._attempt:
                copied += self._reader.copy_to(fd, shown, self._stamper())
            if following is None:
                return copied
            # A log that is complete may still have been longer than one call copies.
            if self._attempt and self._reader.available():
                continue
            self._truncated += self._reader.truncated
            self._reader.close()
            self._open(following, 0)

    def sample(self, now: float) -> None:
        """Note the time for `log.idx`; call it about once a second while watching."""
        if self._attempt:
            self._sampler.sample(now)

    def _open(self, attempt: int, offset: int) -> None:
        self._attempt = attempt
        path = self.run.folder / str(attempt) / LOG
        self._reader = LogReader(path, offset)
        self._sampler = Sampler(path, path.with_name(INDEX))
        self._line: Stamper | None = None

    def _stamper(self) -> Stamper | None:
        if not self._stamped:
            return None
        log = self._reader.path
        try:
            latest = int(log.stat().st_mtime * 1000)
        except OSError:
            latest = 0
        if self._line is None:
            self._line = Stamper([], latest)
        self._line.update(read_times(log), latest)
        return self._line
