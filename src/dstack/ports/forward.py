"""Listening on 127.0.0.1 for a run's ports, and connecting who comes to the run's app.

One thread, one epoll, nothing but loopback. An app that does not listen yet is no error: who
connects waits for it for a while. Linux only, as splice(2) and /proc/net are.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence

from ..errors import CannotStart
from .loop import Door, Loop, Target


class Forwarder:
    """Forwards (run, local) ports while it is started.

    `target` are the addresses on which the app may listen, in the order tried. `shared`: the app
    runs on this machine and listens on its own port itself; a port with run == local then needs
    no forward, except for an app that listens on ::1 alone: 127.0.0.1 is made to lead there as
    soon as that is seen (after about a second). `where` says, in place of `target`, at which host
    and port, or socket, a run port is found (None: nowhere now); it is asked for each connection,
    in the forwarder's thread. Who connects waits `wait` seconds for the app to listen, and is then
    reset.
    """

    def __init__(
        self,
        mapping: Sequence[tuple[int, int]],
        target: Sequence[str] = ("127.0.0.1", "::1"),
        *,
        shared: bool = True,
        where: Callable[[int], Target | None] | None = None,
        wait: float = 5.0,
    ) -> None:
        self._doors = [
            Door(
                run,
                local,
                ("::1",) if shared and run == local else target,
                watched=shared and run == local,
            )
            for run, local in mapping
        ]
        self._where = where
        self._wait = wait
        self._thread: threading.Thread | None = None
        self._ending = False

    def start(self) -> None:
        """Listen on all local ports that need it; does nothing when started.

        Raises CannotStart when a port was taken meanwhile; then nothing listens.
        """
        if self._thread is not None or not self._doors:
            return
        try:
            for door in self._doors:
                if not door.watched:
                    door.listen()
        except OSError as error:
            self._close_doors()
            why = f"not usable: {error.strerror}"
            if error.errno == errno.EADDRINUSE:
                from .listening import describe

                # Another dstack, say, that watches the same run.
                who = describe(door.local)
                why = f"taken by {who}" if who else "taken"
            message = f"local port {door.local} is {why}"
            hint = f'choose another one, or let dstack choose: "*:{door.run}"'
            raise CannotStart(message, hint=hint) from None
        self._ending = False
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._serve, name="ports", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end all connections; doing it twice does no harm."""
        thread = self._thread
        if thread is None:
            return
        self._ending = True
        os.eventfd_write(self._bell, 1)
        thread.join()
        self._thread = None
        os.close(self._bell)

    def __enter__(self) -> Forwarder:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _close_doors(self) -> None:
        for door in self._doors:
            if door.socket is not None:
                door.socket.close()
                door.socket = None

    def _serve(self) -> None:
        import signal

        # Whatever the program does on a broken pipe of its own: a client that left is not it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
        loop = Loop(self._doors, self._wait, self._where)
        loop.watch_bell(self._bell)
        try:
            while not self._ending:
                loop.turn()
        finally:
            self._close_doors()
            loop.close()
