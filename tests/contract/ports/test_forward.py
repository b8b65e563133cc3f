"""Forwarding with real sockets on ports that were free."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dstack.errors import CannotStart
from dstack.ports.forward import Forwarder

PATIENCE = 30.0  # seconds; nothing here takes as long unless it is broken


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)


class App:
    """A server that does `answer` with each connection, in a thread each."""

    def __init__(
        self, answer: Callable[[socket.socket], None], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, port), family=family, backlog=1024)
        self.port = int(self.listener.getsockname()[1])
        self._answer = answer
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._one, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _one(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with connection:
            self._answer(connection)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def closing() -> Iterator[Callable[[App | Forwarder | socket.socket], None]]:
    """Close these at the end, the last one first."""
    things: list[App | Forwarder | socket.socket] = []
    yield things.append
    for thing in reversed(things):
        thing.close()


Closing = Callable[[App | Forwarder | socket.socket], None]


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def echo_at_end(connection: socket.socket) -> None:
    """Answers only after the client's end: nothing arrives without half-close."""
    connection.sendall(read_all(connection)[::-1])


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def ask(port: int, data: bytes) -> bytes:
    with connect(port) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def forward(closing: Closing, run: int, **options: object) -> int:
    local = free_port()
    forwarder = Forwarder([(run, local)], **options)  # type: ignore[arg-type]
    closing(forwarder)
    forwarder.start()
    return local


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_half_close_both_ways(closing: Closing, host: str) -> None:
    app = App(echo_at_end, host)
    closing(app)
    local = forward(closing, app.port)
    assert ask(local, b"hello") == b"olleh"
    assert ask(local, b"") == b""


def test_much_data_both_ways(closing: Closing) -> None:
    app = App(echo_at_end)
    closing(app)
    data = os.urandom(5 << 20)
    assert ask(forward(closing, app.port), data) == data[::-1]


def test_the_app_ends_first(closing: Closing) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        heard.append(read_all(connection))

    heard: list[bytes] = []
    app = App(greet)
    closing(app)
    with connect(forward(closing, app.port)) as client:
        assert read_all(client) == b"bye"
        client.sendall(b"and you")
    until(lambda: heard == [b"and you"])


def test_many_connections_at_once(closing: Closing) -> None:
    def echo(connection: socket.socket) -> None:
        connection.sendall(connection.recv(100))

    app = App(echo)
    closing(app)
    local = forward(closing, app.port)
    clients = [connect(local) for _ in range(200)]
    for client in clients:
        closing(client)
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    assert [read_all(client) for client in clients] == [b"%d" % n for n in range(200)]


def test_a_slow_reader_blocks_nobody(closing: Closing) -> None:
    size = 32 << 20

    def pour(connection: socket.socket) -> None:
        if connection.recv(1) == b"m":
            connection.sendall(b"x" * size)
        else:
            connection.sendall(b"quick")

    app = App(pour)
    closing(app)
    local = forward(closing, app.port)
    slow = connect(local)
    closing(slow)
    slow.sendall(b"m")
    slow.recv(1)  # it has begun
    for _ in range(5):
        assert ask(local, b"q") == b"quick"
    assert len(read_all(slow)) == size - 1


def test_a_reset_is_passed_on(closing: Closing) -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    app = App(reset)
    closing(app)
    with connect(forward(closing, app.port)) as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_client_that_resets(closing: Closing) -> None:
    def wait(connection: socket.socket) -> None:
        try:
            connection.sendall(b"ready")
            seen.append(connection.recv(1))
        except ConnectionResetError:
            seen.append(b"reset")

    seen: list[bytes] = []
    app = App(wait)
    closing(app)
    with connect(forward(closing, app.port)) as client:
        assert client.recv(5) == b"ready"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: seen == [b"reset"])


def test_who_comes_before_the_app_waits_for_it(closing: Closing) -> None:
    run = free_port()
    local = forward(closing, run, wait=PATIENCE)
    clients = [connect(local) for _ in range(3)]
    for client in clients:
        closing(client)
        client.sendall(b"early")
        client.shutdown(socket.SHUT_WR)
    closing(App(echo_at_end, port=run))
    assert [read_all(client) for client in clients] == [b"ylrae"] * 3


def test_who_waits_too_long_is_reset(closing: Closing) -> None:
    local = forward(closing, free_port(), wait=0.3)
    with connect(local) as client, pytest.raises(ConnectionResetError):
        client.recv(1)


def test_what_is_not_the_runs_is_not_shown(closing: Closing) -> None:
    app = App(echo_at_end)
    closing(app)
    own: dict[int, tuple[str, int]] = {}
    local = forward(closing, app.port, where=own.get, wait=PATIENCE)
    with connect(local) as client:
        client.sendall(b"ab")
        client.shutdown(socket.SHUT_WR)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        own[app.port] = ("127.0.0.1", app.port)
        client.settimeout(PATIENCE)
        assert read_all(client) == b"ba"


def test_nobody_stands_in_for_an_app_that_is_not_the_runs(closing: Closing) -> None:
    app = App(echo_at_end, "::1", free_port())
    closing(app)
    own: dict[int, tuple[str, int]] = {}
    looks: list[int] = []

    def where(port: int) -> tuple[str, int] | None:
        looks.append(port)
        return own.get(port)

    with Forwarder([(app.port, app.port)], where=where):
        until(lambda: len(looks) > 1)
        assert not listens(app.port)
        # Nor does it lead to itself, once it does stand in.
        own[app.port] = ("127.0.0.1", app.port)
        seen = len(looks)
        until(lambda: len(looks) > seen)
        assert not listens(app.port)
        own[app.port] = ("::1", app.port)
        until(lambda: listens(app.port))
        assert ask(app.port, b"six") == b"xis"


def test_an_app_on_ipv6_alone_is_reached_at_ipv4() -> None:
    app = App(echo_at_end, "::1", free_port())
    with Forwarder([(app.port, app.port)]):
        until(lambda: listens(app.port))
        assert ask(app.port, b"six") == b"xis"
        app.close()
        # The address is given back, for an app that starts again on IPv4.
        until(lambda: not listens(app.port))


def listens(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return False
    return True


def test_an_app_on_its_own_port_is_left_alone(closing: Closing) -> None:
    port = free_port()
    with Forwarder([(port, port)]):
        app = App(echo_at_end, port=port)  # it can listen: nobody else does
        closing(app)
        assert ask(port, b"own") == b"nwo"


def test_ports_that_are_not_shared_are_all_forwarded(closing: Closing) -> None:
    app = App(echo_at_end, "::1", free_port())
    closing(app)
    with Forwarder([(app.port, app.port)], ["::1"], shared=False):
        assert ask(app.port, b"ab") == b"ba"


def test_a_taken_port(closing: Closing) -> None:
    app = App(echo_at_end)
    closing(app)
    other = free_port()
    forwarder = Forwarder([(1, other), (2, app.port)])
    with pytest.raises(CannotStart, match=f"local port {app.port} is taken"):
        forwarder.start()
    assert not listens(other)
    forwarder.close()


def open_files() -> set[str]:
    """What this process has open, without what only looking opens."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue
    return found


def ended(client: socket.socket) -> bool:
    """Closed, or reset where it had not been accepted yet."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_nothing_is_left_behind() -> None:
    before, threads = open_files(), threading.active_count()
    app = App(echo_at_end)
    local = free_port()
    forwarder = Forwarder([(app.port, local)])
    forwarder.start()
    forwarder.start()
    assert ask(local, b"x") == b"x"
    client = connect(local)
    forwarder.close()
    forwarder.close()
    with client:
        assert ended(client)
    app.close()
    assert threading.active_count() == threads
    assert open_files() == before
    assert not listens(local)


def test_it_can_be_started_again(closing: Closing) -> None:
    app = App(echo_at_end)
    closing(app)
    local = free_port()
    forwarder = Forwarder([(app.port, local)])
    for _ in range(2):
        with forwarder:
            assert ask(local, b"x") == b"x"


def test_waiting_costs_nothing(closing: Closing) -> None:
    app = App(echo_at_end)
    closing(app)
    with connect(forward(closing, app.port)) as client:
        client.sendall(b"x")
        begun = time.process_time()
        time.sleep(0.5)  # what is measured is this silence itself
        assert time.process_time() - begun < 0.25


FEW_FILES = """
import resource, socket, sys
from dstack.ports.forward import Forwarder
local = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256))
with Forwarder([(int(sys.argv[2]), local)]):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_more_connections_than_files(closing: Closing) -> None:
    def echo(connection: socket.socket) -> None:
        connection.sendall(connection.recv(100))

    app = App(echo)
    closing(app)
    local = free_port()
    command = [sys.executable, "-c", FEW_FILES, str(local), str(app.port)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        # 150 connections need 300 files: the last ones are served when the first have ended.
        clients = [connect(local) for _ in range(150)]
        for client in clients:
            closing(client)
            client.sendall(b"x")
        for client in clients:
            with client:
                assert read_all(client) == b"x"
        process.communicate()
    assert process.returncode == 0
