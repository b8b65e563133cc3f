"""When what was printed: `log.idx` beside a log.

Nobody stands between a job and its log, so who watches writes down how long the log is, at most
once a second: `UNIX_MS OFFSET` a line, meaning "everything before OFFSET was printed by then".
Times are right to about a second while somebody watches. While nobody does, what looks after the
job's limit (engines/guard.sh) does it every five seconds, with the time of the last byte.

Of a run on another machine, `far.idx` is what was written there, by this machine's clock.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from pathlib import Path

INDEX, FAR = "log.idx", "far.idx"
EVERY = 1.0  # seconds between two samples

_BLOCK = 64 << 10
_FAR = 1 << 20  # how far back a line's start is looked for: progress bars have no line ends


class Sampler:
    """Writes the index of one log while it is watched."""

    def __init__(self, log: Path, index: Path) -> None:
        self._log = log
        self._index = index
        self._next = 0.0
        found = read_index(index)
        self._offset = found[-1][1] if found else 0
        self._time = found[-1][0] if found else 0

    def sample(self, now: float) -> bool:
        """Note how long the log is at `now` (seconds since the epoch); whether it was noted.

        Does nothing within a second of the last time, nor when the log has not grown. A clock
        that moved back is taken to stand still. Errors of the disk are ignored: an index is a
        convenience, and the log itself is not in danger.
        """
        # A clock that moved back by more than the interval must not silence us until it catches up.
        if self._next - EVERY <= now < self._next:
            return False
        try:
            found = self._log.stat()
        except OSError:
            return False
        if found.st_size == self._offset:
            return False
        self._next = now + EVERY
        self._offset = found.st_size
        self._time = max(self._time, int(min(now, found.st_mtime) * 1000))
        try:
            fd = os.open(self._index, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.write(fd, b"%d %d\n" % (self._time, self._offset))
        except OSError:
            return False
        finally:
            os.close(fd)
        return True


def read_index(index: Path) -> list[tuple[int, int]]:
    """The samples (milliseconds since the epoch, offset), both growing; none where there is none.

    Where samples contradict each other the later one counts: the log was emptied. One of two who
    write at once may come late, with a look from before the other's: then both are right. Lines
    that are not samples (a disk that was full) are passed over.
    """
    try:
        return parse_index(index.read_bytes())
    except OSError:
        return []


def parse_index(data: bytes) -> list[tuple[int, int]]:
    """What `read_index` does, with the bytes of the file."""
    samples: list[tuple[int, int]] = []
    late: list[tuple[int, int]] = []
    latest = 0
    for line in data.splitlines(keepends=True):
        time, _, offset = line.strip().partition(b" ")
        if not (line.endswith(b"\n") and time.isdigit() and offset.isdigit()):
            continue
        sample = (int(time), int(offset))
        if samples and sample[0] < latest and sample[1] <= samples[-1][1]:
            late.append(sample)
            continue
        latest = max(latest, sample[0])
        while samples and samples[-1][1] >= sample[1]:
            samples.pop()
        samples.append((latest, sample[1]))
    end = samples[-1][1] if samples else 0
    return merge(samples, [sample for sample in late if sample[1] <= end]) if late else samples


def merge(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What two who watched the same log know together.

    Each sample is true, so of what both cover the earlier time counts.
    """
    merged: list[tuple[int, int]] = []
    for time, offset in sorted([*one, *other], key=lambda sample: (-sample[1], sample[0])):
        if not merged or time < merged[-1][0]:
            merged.append((time, offset))
    return merged[::-1]


def read_times(log: Path) -> list[tuple[int, int]]:
    """All that is known of a log, as `read_index` gives it."""
    there = read_index(log.with_name(FAR))
    here = read_index(log.with_name(INDEX))
    return merge(here, there) if there else here


def offset_since(log: Path, since: float) -> int:
    """Where the first line begins that was printed at or after `since` (seconds since the epoch).

    A line that was begun before and went on after counts as a whole. What no sample covers was
    printed up to the log's last change. 0 when there is no log.
    """
    samples = read_times(log)
    try:
        found = log.stat()
    except OSError:
        return 0
    if found.st_mtime < since:
        return found.st_size
    times = [time for time, _ in samples]
    before = bisect_left(times, int(since * 1000))
    offset = samples[before - 1][1] if before else 0
    return line_start(log, min(offset, found.st_size))


def line_start(log: Path, offset: int) -> int:
    """Where the line begins that `offset` stands in; `offset` itself if that is over 1 MB away."""
    with log.open("rb", buffering=0) as file:
        end = offset
        while end > max(0, offset - _FAR):
            start = max(0, end - _BLOCK)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
    return 0 if end == 0 else offset


class Stamper:
    """Puts the time before each line, for `logs -t`: `2024-05-01T12:00:00.123Z `, in UTC.

    `samples` as `read_index` gives them; what comes behind the last one gets the time `latest`,
    in milliseconds since the epoch.
    """

    def __init__(self, samples: list[tuple[int, int]], latest: int) -> None:
        self._at_start = True
        self.update(samples, latest)

    def update(self, samples: list[tuple[int, int]], latest: int) -> None:
        """Go on with newer samples."""
        self._times = [time for time, _ in samples]
        self._offsets = [offset for _, offset in samples]
        self.latest = latest

    def boundary(self, offset: int) -> int:
        """Up to which offset the time of `offset` holds; a very large number behind the last."""
        at = bisect_right(self._offsets, offset)
        return self._offsets[at] if at < len(self._offsets) else 1 << 62

    def stamp(self, data: bytes, offset: int) -> bytes:
        """`data` with the time of `offset` (in the log) before each line that begins in it."""
        if not data:
            return data
        at = bisect_right(self._offsets, offset)
        time = rfc3339(self._times[at] if at < len(self._times) else self.latest) + b" "
        ended = data.endswith(b"\n")
        body = data[:-1] if ended else data
        text = body.replace(b"\n", b"\n" + time)
        if self._at_start:
            text = time + text
        self._at_start = ended
        return text + b"\n" if ended else text


def rfc3339(ms: int) -> bytes:
    """Milliseconds since the epoch as `2024-05-01T12:00:00.123Z`."""
    import time

    whole, rest = divmod(ms, 1000)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:03d}Z", time.gmtime(whole)).encode()
