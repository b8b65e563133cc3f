"""Forwarding a port, against talking to the app directly."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable

from bench.harness import Context, Row, side_by_side

SIZE = 1 << 30
PIECE = 1 << 18
ROUND_TRIPS = 2_000
CONNECTIONS = 500

# The app: pours what it is asked for, or echoes. A process of its own, as a run's app is.
APP = f"""
import socket, threading
server = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(server.getsockname()[1], flush=True)
def serve(connection):
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = connection.recv(1)
        if asked == b"p":
            data = b"x" * {PIECE}
            for _ in range({SIZE // PIECE}):
                connection.sendall(data)
        while asked == b"e" and (data := connection.recv(65536)):
            connection.sendall(data)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

# The forwarder, as `dstack run` has it: in another process than both ends.
FORWARD = """
import sys
from dstack.ports.forward import Forwarder
with Forwarder([(int(sys.argv[1]), int(sys.argv[2]))]):
    print("ready", flush=True)
    sys.stdin.read()
"""


def start(code: str, *args: int) -> tuple[subprocess.Popen[bytes], bytes]:
    """A Python process and the first line that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    return process, process.stdout.readline()


def bulk(port: int) -> float:
    """Seconds to receive SIZE bytes."""
    buffer = bytearray(PIECE)
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"p")
        received = 0
        while count := client.recv_into(buffer):
            received += count
    assert received == SIZE
    return time.perf_counter() - begun


def round_trips(port: int) -> float:
    """Seconds for one small request and its answer."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"e")
        begun = time.perf_counter()
        for _ in range(ROUND_TRIPS):
            client.sendall(b"x" * 200)
            client.recv(65536)
        return (time.perf_counter() - begun) / ROUND_TRIPS


def connections(port: int) -> float:
    """Seconds for one new connection, a question, its answer and the end."""
    begun = time.perf_counter()
    for _ in range(CONNECTIONS):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"ex")
            client.recv(1)
    return (time.perf_counter() - begun) / CONNECTIONS


def free_port() -> int:
    """A port that was free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(context: Context) -> Iterable[Row]:  # noqa: ARG001 - every bench has it
    """Bulk, round trips and new connections through a forward and without it."""
    local = free_port()
    app, said = start(APP)
    direct = int(said)
    forward, _ = start(FORWARD, direct, local)
    try:
        a, b = side_by_side(lambda: bulk(local), lambda: bulk(direct), rounds=5)
        speeds = (SIZE / a / 1e6, SIZE / b / 1e6)
        yield Row("forwarded port, bulk", *speeds, "MB/s", 0.5, at_least=True)
        a, b = side_by_side(lambda: round_trips(local), lambda: round_trips(direct), rounds=3)
        note = f"direct: {b * 1e3:.2f}"
        yield Row("the same, round trip", a * 1e3, None, "ms", 1, note=note)
        a, b = side_by_side(lambda: connections(local), lambda: connections(direct), rounds=3)
        yield Row("the same, new connection", a * 1e3, b * 1e3, "ms", 4)
    finally:
        for process in (forward, app):
            process.kill()
            process.communicate()
