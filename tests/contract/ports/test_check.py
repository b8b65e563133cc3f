"""Choosing local ports on a machine where some are taken."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from dstack.config.shapes import Port
from dstack.errors import CannotStart
from dstack.ports.check import choose, why_taken
from dstack.ports.listening import describe, listeners, owners


def a_free_pair() -> tuple[int, int]:
    """Two ports in a row that are free, with one more behind them."""
    for first in range(20_000, 32_000, 7):
        if not any(why_taken(port) for port in range(first, first + 4)):
            return first, first + 1
    pytest.fail("no free ports")


Listen = Callable[[str, int], int]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Listen on a host and port (0: any); gives the port."""
    sockets: list[socket.socket] = []

    def begin(host: str, port: int = 0) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = socket.create_server((host, port), family=family)
        sockets.append(server)
        return int(server.getsockname()[1])

    yield begin
    for server in sockets:
        server.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_any_listener_counts(listen: Listen, host: str) -> None:
    port = listen(host, 0)
    why = why_taken(port)
    assert why is not None
    assert f"process {os.getpid()}" in why
    with pytest.raises(CannotStart, match=f"local port {port} is taken by .*process"):
        choose([Port(8000, port)])


def test_a_closed_connection_does_not_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            connection, _ = server.accept()
            connection.close()  # this side now waits out the connection's end
            assert client.recv(1) == b""
    assert why_taken(port) is None


def test_looking_leaves_no_socket() -> None:
    first, _ = a_free_pair()
    before = os.listdir("/proc/self/fd")
    assert why_taken(first) is None
    assert why_taken(first) is None
    assert os.listdir("/proc/self/fd") == before
    assert not any(found.port == first for found in listeners())


def test_the_same_port_and_another() -> None:
    first, second = a_free_pair()
    assert choose([Port(first, first)]) == ((first, first),)
    assert choose([Port(first, second)]) == ((first, second),)


def test_a_runs_own_port_must_be_free_where_it_is_shared(listen: Listen) -> None:
    first, second = a_free_pair()
    listen("127.0.0.1", first)
    with pytest.raises(CannotStart, match=f"port {first} of the run is taken"):
        choose([Port(first, second)])
    assert choose([Port(first, second)], shared=False) == ((first, second),)


def test_ports_of_other_runs() -> None:
    first, second = a_free_pair()
    with pytest.raises(CannotStart, match="promised to the active run web"):
        choose([Port(first, first)], {first: "web"})
    with pytest.raises(CannotStart, match=f"port {first} of the run is promised"):
        choose([Port(first, second)], {first: "web"})
    assert choose([Port(first, None)], {first: "web"}) == ((first, second),)


def test_a_star_is_the_first_free_one(listen: Listen) -> None:
    first, second = a_free_pair()
    assert choose([Port(first, None)]) == ((first, first),)
    listen("127.0.0.1", first)
    assert choose([Port(first, None)]) == ((first, second),)


def test_stars_differ_and_keep_away_from_other_ports() -> None:
    first, second = a_free_pair()
    both = (Port(first, None), Port(second, None))
    assert choose(both) == ((first, first), (second, second))
    # The second `*` must not take what the first one got, nor a port that is asked for by name.
    chosen = choose([Port(first, None), Port(second, first)], shared=False)
    assert chosen == ((first, second), (second, first))


def test_no_port_left() -> None:
    with pytest.raises(CannotStart, match="no local port from 65535 up is free"):
        choose([Port(65535, None)], {65535: "web"})


def test_who_listens(listen: Listen) -> None:
    port = listen("127.0.0.1", 0)
    assert owners(port) == [os.getpid()]
    assert f"(process {os.getpid()})" in (describe(port) or "")
    first, _ = a_free_pair()
    assert describe(first) is None
