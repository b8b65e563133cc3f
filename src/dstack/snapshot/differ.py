"""Where two versions of a large file differ, read once from the front and once for the end."""

from __future__ import annotations

from collections.abc import Callable

Read = Callable[[int], bytes]

PIECE = 1 << 20


def common_head(old: Read, new: Read) -> int:
    """How many bytes two contents have in common at their beginning.

    `old` and `new` give the next bytes, as many as asked for; fewer at the end.
    """
    same = 0
    while True:
        left, right = old(PIECE), new(PIECE)
        if left != right or not left:
            return same + _same(left, right)
        same += len(left)


def common_tail(old: Read, new: Read, old_size: int, new_size: int, head: int) -> int:
    """How many bytes they have in common at their end; never more than `head` leaves of either."""
    shorter = min(old_size, new_size)
    _skip(old, old_size - shorter)
    _skip(new, new_size - shorter)
    at, last = 0, -1  # where the last difference is
    while at < shorter:
        left, right = old(PIECE), new(PIECE)
        if not left:
            break
        if left != right:
            last = at + _last_difference(left, right)
        at += len(left)
    return min(shorter - last - 1, shorter - head)


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


def _last_difference(left: bytes, right: bytes) -> int:
    """Where two that differ, of one length, differ last."""
    low, high = 0, len(left)
    while low < high:
        middle = (low + high) // 2
        if left[middle:high] == right[middle:high]:
            high = middle
        else:
            low = middle + 1
    return low - 1
