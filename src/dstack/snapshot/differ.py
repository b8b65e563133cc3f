"""What two versions of a large file have in common, as the copies that make the new one of the old.

Both are read once, side by side, and compared a megabyte at a time. Where they differ, the place
where they agree again is looked for ahead: at the same distance in both, which finds what was
changed in place, then with a few words of the old one (`bytes.find`), which finds what was
inserted or deleted; in windows that grow to WINDOWS[-1], and with them what can be found. Content
that moved to before what it was behind is not. All loops over bytes are in C: comparing costs
less than reading, and memory is some windows, however large the file is.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

Read = Callable[[int], bytes]

PIECE = 1 << 20
WINDOWS = (1 << 16, 1 << 20, 1 << 24)  # bytes ahead, one after the other
LEAST = 1 << 14  # bytes: of a shorter run, what it costs to copy it is more than to send it
MOST = 500  # copies; the host starts about four processes for each
_STEPS = 256  # in a window, at the same distance
_WORDS = 8  # of a window that are looked for elsewhere
_WORD = 64  # bytes
_TRIES = 4  # places of one word: it may stand where it does not belong
_SEARCHES = 10_000  # at most: what differs that often is sent


class Copy(msgspec.Struct, frozen=True):
    """`size` bytes that stand at `old` in the old version and at `new` in the new one."""

    old: int
    new: int
    size: int


class _Side:
    """One version: the bytes from `at` on, as far as they were read."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.data = b""
        self.at = 0  # in `data`
        self._begin = 0  # of `data` in the content

    @property
    def offset(self) -> int:
        return self._begin + self.at

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def need(self, count: int) -> int:
        """Have `count` bytes ready, fewer at the end; how many there are."""
        if self.left < count:
            more = self._read(count - self.left)
            self._begin += self.at
            self.data = self.data[self.at :] + more
            self.at = 0
        return min(self.left, count)

    def next(self, count: int, ahead: int = 0) -> bytes:
        begin = self.at + ahead
        return self.data[begin : begin + count]


def copies(old: Read, new: Read) -> list[Copy]:
    """The copies that make the new version, ascending in both; what lies between is new.

    `old` and `new` give the next bytes, as many as asked for; fewer at the end.
    """
    left, right = _Side(old), _Side(new)
    found: list[Copy] = []
    lost = 0  # windows, one after the other, in which nothing was found
    for _ in range(_SEARCHES):
        begin = left.offset, right.offset
        size = _advance(left, right)
        if size >= LEAST:
            found.append(Copy(*begin, size))
            if len(found) > 8 * MOST:
                found = longest(found)
        if not (left.need(1) and right.need(1)):
            break
        # What is all new is searched less and less, so that it costs little more than to read it.
        if _resync(left, right, elsewhere=lost & (lost - 1) == 0):
            lost = 0
        else:
            lost += 1
            for side in (left, right):
                side.at += min(side.left, WINDOWS[-1])
    return longest(found)


def longest(found: list[Copy]) -> list[Copy]:
    """The MOST longest of them, in their order."""
    if len(found) <= MOST:
        return found
    kept = sorted(found, key=lambda copy: copy.size, reverse=True)[:MOST]
    return sorted(kept, key=lambda copy: copy.new)


def _advance(left: _Side, right: _Side) -> int:
    """Go on in both as far as they are the same; how many bytes that is."""
    same, most = 0, LEAST  # growing: it may be a short way to the next difference
    while True:
        if not (left.left and right.left) and not (left.need(PIECE) and right.need(PIECE)):
            return same
        count = min(left.left, right.left, most)
        one, other = left.next(count), right.next(count)
        equal = count if one == other else _same(one, other)
        left.at += equal
        right.at += equal
        same += equal
        if equal < count:
            return same
        most = min(2 * most, PIECE)


def _resync(left: _Side, right: _Side, *, elsewhere: bool) -> bool:
    """Go on in both to where they agree again; false where that is not known."""
    for window in WINDOWS:
        ready = max(left.need(window + LEAST), right.need(window + LEAST))
        place = _in_place(left, right, window)
        if place is None and elsewhere:
            place = _elsewhere(left, right, window)
        if place is not None:
            left.at += place[0]
            right.at += place[1]
            return True
        if ready < window:
            break
    return False


def _in_place(left: _Side, right: _Side, window: int) -> tuple[int, int] | None:
    """How far ahead they agree, at the same distance in both."""
    step = max(window // _STEPS, 1)
    for ahead in range(step, min(window, left.left, right.left) + 1 - _WORD, step):
        if left.next(_WORD, ahead) == right.next(_WORD, ahead):
            place = _begin(left, right, ahead, ahead)
            if place is not None:
                return place
    return None


def _elsewhere(left: _Side, right: _Side, window: int) -> tuple[int, int] | None:
    """How far ahead in each they agree, at any distance."""
    for ahead in range(0, min(window, left.left + 1 - _WORD), max(window // _WORDS, 1)):
        word = left.next(_WORD, ahead)
        at = right.at
        for _ in range(_TRIES):
            at = right.data.find(word, at, right.at + window)
            if at < 0:
                break
            place = _begin(left, right, ahead, at - right.at)
            if place is not None:
                return place
            at += 1
    return None


def _begin(left: _Side, right: _Side, one: int, other: int) -> tuple[int, int] | None:
    """Where the run begins that goes through two places; None when it is too short."""
    after = _same(left.next(LEAST, one), right.next(LEAST, other))
    most = min(one, other)
    short = min(LEAST - after, most)
    back = _same_end(left.next(short, one - short), right.next(short, other - short))
    if after + back < LEAST:
        return None
    if back == short:  # perhaps more than was asked for
        back = _same_end(left.next(most, one - most), right.next(most, other - most))
    return one - back, other - back


def common_tail(old: Read, new: Read, old_size: int, new_size: int, most: int) -> int:
    """How many bytes they have in common at their end; never more than `most`."""
    shorter = min(old_size, new_size)
    _skip(old, old_size - shorter)
    _skip(new, new_size - shorter)
    at, same = 0, 0  # `same`: of what was read, the common end
    while at < shorter:
        left, right = old(PIECE), new(PIECE)
        if not left:
            break
        same = same + len(left) if left == right else _same_end(left, right)
        at += len(left)
    return min(same, most)


def _skip(read: Read, count: int) -> None:
    while count > 0:
        data = read(min(count, PIECE))
        if not data:
            return
        count -= len(data)


def _same(left: bytes, right: bytes) -> int:
    """The length of the common beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _same_end(left: bytes, right: bytes) -> int:
    """The length of the common end of two of one length."""
    low, high = 0, len(left)
    while low < high:
        middle = (low + high) // 2
        if left[middle:high] == right[middle:high]:
            high = middle
        else:
            low = middle + 1
    return len(left) - low
