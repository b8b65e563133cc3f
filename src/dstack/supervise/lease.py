"""Who supervises a run: the process that holds the lock on its byte of the lease file.

The kernel drops the lock with its holder, however that ends: no clock, no heartbeat, nothing to
clean up. POSIX record locks (`fcntl(2)`) belong to a process and are dropped when *any* descriptor
of the file is closed, so a process opens the file once and keeps it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import StoreError
from ..paths import Home

# Byte 0 is the background supervisor's; run number `seq` has byte `seq`.
BACKGROUND = 0
# Behind every run's: held while local ports are chosen, so that two runs never choose the same.
_PORTS = 1 << 40


class Leases:
    """The lease file of one dstack folder, opened once per process."""

    def __init__(self, home: Home) -> None:
        try:
            self._fd = os.open(home.leases, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"cannot open {home.leases}: {error.strerror}"
            raise StoreError(message) from None
        self.held: set[int] = set()

    def take(self, seq: int) -> bool:
        """Take it, if nobody else has it. Taking it twice does no harm."""
        if seq in self.held:
            return True
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, seq)
        except (BlockingIOError, PermissionError):
            return False
        self.held.add(seq)
        return True

    def drop(self, seq: int) -> None:
        """Give it back."""
        if seq in self.held:
            self.held.discard(seq)
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, seq)

    @contextmanager
    def choosing_ports(self) -> Iterator[None]:
        """Nobody else chooses ports meanwhile; waits for its turn."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _PORTS)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _PORTS)
