"""The forwarder's thread: one epoll, doors, and the connections that came through them."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence

from .flow import Flow, Pipes, room_for
from .listening import listeners

_RETRY = 0.1  # seconds between two looks at an app that does not listen yet
_WATCH = 0.5  # seconds between two looks at which address an app listens on
_ACCEPTS = 64  # connections accepted before the others have their turn
_FILES = 4  # open files that a connection may need: two sockets, and a pipe when one is slow
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


# Where a connection leads: host and port, or a socket's path.
Target = tuple[str, int] | str


class Door:
    """One local port: where its connections lead, and the socket that listens, if one does."""

    def __init__(self, run: int, local: int, targets: Sequence[str], *, watched: bool) -> None:
        self.run = run
        self.local = local
        self.targets = targets
        self.watched = watched  # the app itself listens there: only stand in for 127.0.0.1
        self.seen = 0  # how often in a row only IPv6 was listened on
        self.socket: socket.socket | None = None
        self.waiting: list[Connection] = []

    def listen(self) -> None:
        """Begin to listen. Raises OSError."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind(("127.0.0.1", self.local))
            listener.listen(1024)
        except OSError:
            listener.close()
            raise
        self.socket = listener


class Connection:
    """One client, and the app's side once there is one."""

    def __init__(self, door: Door, client: socket.socket, deadline: float) -> None:
        self.door = door
        self.client = client
        self.deadline = deadline
        self.target: socket.socket | None = None
        self.flows: tuple[Flow, Flow] | None = None  # to the app, from the app
        self.targets: Sequence[Target] = ()
        self.tried = 0  # how many of these
        self.masks: dict[int, int] = {}  # what epoll was told about each of the two
        self.over: set[int] = set()  # those of which both directions have ended


class Loop:
    """What the forwarder's thread does; all of its state is this thread's alone."""

    def __init__(
        self,
        doors: Sequence[Door],
        wait: float,
        where: Callable[[int], Target | None] | None = None,
    ) -> None:
        self._doors = doors
        self._where = where
        self._wait = wait
        self._epoll = select.epoll()
        self._pipes = Pipes()
        self._by_fd: dict[int, Door | Connection] = {}
        self._connections: set[Connection] = set()
        self._next_retry = 0.0
        self._next_watch = 0.0
        self._paused: list[Door] = []
        # Closed after a turn: a file's number must not come again while its old events do.
        self._closing: list[socket.socket] = []
        for door in doors:
            self._open(door)

    def watch_bell(self, fd: int) -> None:
        """Return from `turn` when `fd` rings."""
        self._epoll.register(fd, _IN)

    def close(self) -> None:
        """End everything; what can still be handed to the kernel is."""
        for connection in list(self._connections):
            if connection.flows is not None:
                self._pump(connection, connection.flows)
            self._end(connection)
        self._close_ended()
        self._pipes.close()
        self._epoll.close()

    def turn(self) -> None:
        """Wait for something and do it."""
        for fd, events in self._epoll.poll(self._timeout()):
            entry = self._by_fd.get(fd)
            if isinstance(entry, Door):
                self._accept(entry)
            elif entry is not None:
                self._event(entry, fd, events)
        now = time.monotonic()
        if now >= self._next_retry:
            self._next_retry = now + _RETRY
            self._retry(now)
        if now >= self._next_watch:
            self._next_watch = now + _WATCH
            self._watch()
        self._close_ended()

    def _close_ended(self) -> None:
        while self._closing:
            self._closing.pop().close()

    def _timeout(self) -> float | None:
        if self._paused or any(door.waiting for door in self._doors):
            return _RETRY
        return _WATCH if any(door.watched for door in self._doors) else None

    # The doors.

    def _open(self, door: Door) -> None:
        if door.socket is not None:
            self._by_fd[door.socket.fileno()] = door
            self._epoll.register(door.socket, _IN)

    def _shut(self, door: Door) -> None:
        if door.socket is not None:
            del self._by_fd[door.socket.fileno()]
            self._epoll.unregister(door.socket)
            door.socket.close()
            door.socket = None

    def _watch(self) -> None:
        """Stand in for 127.0.0.1 where an app listens on ::1 only, while it does."""
        watched = [door for door in self._doors if door.watched]
        if not watched:
            return
        found = {(listener.family, listener.port) for listener in listeners()}
        for door in watched:
            if (6, door.local) not in found:
                door.seen = 0
                self._shut(door)
            elif door.socket is None and (4, door.local) not in found:
                # Seen twice: an app that opens ::1 first may be about to open 127.0.0.1 itself.
                door.seen += 1
                if door.seen > 1 and self._targets(door):
                    self._stand_in(door)

    def _stand_in(self, door: Door) -> None:
        try:
            door.listen()
        except OSError:
            return  # its IPv6 socket takes IPv4 too
        self._open(door)

    def _accept(self, door: Door) -> None:
        for _ in range(_ACCEPTS):
            if door.socket is None:
                return
            if not room_for(_FILES * (len(self._connections) + 1)):
                # They stay in the kernel's queue until others have ended.
                self._pause(door)
                return
            try:
                client, _address = door.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._pause(door)
                    return
                continue  # it left before we came
            _prepare(client)
            connection = Connection(door, client, time.monotonic() + self._wait)
            self._connections.add(connection)
            self._set(connection, client, 0)
            self._connect(connection)

    def _pause(self, door: Door) -> None:
        if door.socket is not None and door not in self._paused:
            self._epoll.modify(door.socket, 0)
            self._paused.append(door)

    # Connecting to the app.

    def _retry(self, now: float) -> None:
        paused, self._paused = self._paused, []
        for door in paused:
            if door.socket is not None:
                self._epoll.modify(door.socket, _IN)
        for door in self._doors:
            for connection in [one for one in door.waiting if one.deadline <= now]:
                self._abort(connection)
            # One tries for all: a thousand that wait must not be a thousand attempts.
            if door.waiting:
                self._connect(door.waiting.pop(0))

    def _connect(self, connection: Connection) -> None:
        connection.tried = 0
        connection.targets = self._targets(connection.door)
        self._try_next(connection)

    def _targets(self, door: Door) -> Sequence[Target]:
        if self._where is None:
            return [(host, door.run) for host in door.targets]
        found = self._where(door.run)
        if found is None or (door.watched and found[0] not in door.targets):
            return []  # one that stands in for the app must not lead to itself
        return [found]

    def _try_next(self, connection: Connection) -> None:
        door = connection.door
        while connection.tried < len(connection.targets):
            address = connection.targets[connection.tried]
            connection.tried += 1
            try:
                target = socket.socket(_family(address), socket.SOCK_STREAM)
            except OSError:
                continue
            _prepare(target)
            if target.connect_ex(address) in (0, errno.EINPROGRESS):
                connection.target = target
                self._set(connection, target, _OUT)
                return
            target.close()
        # In the order they came: this one may have tried for the others.
        door.waiting.insert(0, connection)

    def _connected(self, connection: Connection, target: socket.socket) -> None:
        """The attempt has ended, one way or the other."""
        failed = target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed or _is_itself(target):
            self._forget(connection, target)
            connection.target = None
            self._closing.append(target)
            self._try_next(connection)
            return
        client = connection.client
        connection.flows = (Flow(client, target), Flow(target, client))
        self._pump(connection, connection.flows)
        others, connection.door.waiting = connection.door.waiting, []
        for other in others:
            self._connect(other)

    # Connections.

    def _event(self, connection: Connection, fd: int, events: int) -> None:
        if connection.flows is None:
            if connection.target is not None and fd == connection.target.fileno():
                self._connected(connection, connection.target)
            else:
                self._abort(connection)  # the client had enough of waiting
            return
        at_client = fd == connection.client.fileno()
        side = connection.client if at_client else connection.flows[0].target
        if events & select.EPOLLERR and side.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._abort(connection)
            return
        if events & select.EPOLLHUP and not connection.masks[fd]:
            # Both directions of this side are over; epoll would say so again and again.
            connection.over.add(fd)
            self._forget(connection, side)
            return
        up, down = connection.flows
        reading, writing = (up, down) if at_client else (down, up)
        ready = []
        if events & (_IN | select.EPOLLHUP):
            ready.append(reading)
        if events & (_OUT | select.EPOLLHUP):
            ready.append(writing)
        self._pump(connection, ready)

    def _pump(self, connection: Connection, ready: Sequence[Flow]) -> None:
        try:
            for flow in ready:
                flow.pump(self._pipes)
        except OSError:
            self._abort(connection)
            return
        assert connection.flows is not None  # noqa: S101 - only then there is something to pump
        up, down = connection.flows
        if up.finished and down.finished:
            self._end(connection)
            return
        for side, reading, writing in ((up.source, up, down), (up.target, down, up)):
            mask = (_IN if reading.wants_input else 0) | (_OUT if writing.wants_room else 0)
            self._set(connection, side, mask)

    def _set(self, connection: Connection, side: socket.socket, mask: int) -> None:
        fd = side.fileno()
        known = connection.masks.get(fd)
        if known is None:
            if not mask and fd in connection.over:
                return
            self._by_fd[fd] = connection
            self._epoll.register(fd, mask)
        elif known != mask:
            self._epoll.modify(fd, mask)
        connection.masks[fd] = mask

    def _forget(self, connection: Connection, side: socket.socket) -> None:
        fd = side.fileno()
        if connection.masks.pop(fd, None) is not None:
            del self._by_fd[fd]
            self._epoll.unregister(fd)

    def _abort(self, connection: Connection) -> None:
        """End both sides with a reset: something was lost, and each must know."""
        for side in (connection.client, connection.target):
            if side is not None:
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._end(connection)

    def _end(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        if connection in connection.door.waiting:
            connection.door.waiting.remove(connection)
        for flow in connection.flows or ():
            flow.drop(self._pipes)
        for side in (connection.client, connection.target):
            if side is not None:
                self._forget(connection, side)
                self._closing.append(side)


def _family(address: Target) -> socket.AddressFamily:
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _is_itself(sock: socket.socket) -> bool:
    """Whether a socket was connected to itself, as TCP does when nobody listens on a high port."""
    try:
        return bool(sock.getsockname()[:2] == sock.getpeername()[:2])
    except OSError:
        return True
