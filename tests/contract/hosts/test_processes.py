"""Processes that a host starts, watches and signals; files that grow; ports."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dstack.errors import HostError
from dstack.hosts.base import ProcessId, Stream
from tests.contract.hosts.places import Place, commands
from tests.engines.registry import free_port
from tests.hosts.namespaces import inside
from tests.support import wait_for


def spawn(place: Place, script: str, output: Path, **env: str) -> ProcessId:
    """Start a script there; who it is."""
    pid = place.host.spawn(["/bin/sh", "-c", script], env=env, output=output)
    (found,) = place.host.read_many([Path(f"/proc/{pid}/stat")])
    started = found.data.rpartition(b")")[2].split()[19].decode() if found else "0"
    return ProcessId(pid, started, place.host.boot_id())


def text(place: Place, path: Path) -> str:
    """What a file there holds; empty when there is none."""
    seen = place.see(path)
    return seen.read_text() if seen.exists() else ""


# ---- starting ----


def test_it_runs_in_a_session_of_its_own_and_writes_to_its_output(place: Place) -> None:
    out = place.folder() / "out"
    place.write(out, b"before\n")
    script = 'echo out; echo err >&2; cat; IFS=" "; set -- $(cat /proc/$$/stat); echo "$$ $5 $6"'
    process = spawn(place, script, out)
    wait_for(lambda: text(place, out).count("\n") == 4, "its output")
    pid = str(process.pid)
    assert text(place, out) == f"before\nout\nerr\n{pid} {pid} {pid}\n"


def test_its_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    out = place.folder() / "out"
    monkeypatch.setenv("NOT_FOR_RUNS", "1")
    value = "it's\n$HOME \\ ✓"
    spawn(place, 'printf "%s|" "$VALUE"; env; echo end', out, VALUE=value, PATH="/usr/bin:/bin")
    wait_for(lambda: text(place, out).endswith("end\n"), "its output")
    found = text(place, out)
    assert found.startswith(f"{value}|")
    assert "\nPATH=/usr/bin:/bin\n" in found
    home = {"root": os.environ.get("HOME", "/root")}.get(place.user, f"/home/{place.user}")
    assert f"HOME={home}\n" in found
    for name in ("NOT_FOR_RUNS", "SSH_CONNECTION", "d_n=", "DSTACK_"):
        assert name not in found


def test_no_signal_is_ignored_in_it(place: Place) -> None:
    out = place.folder() / "out"
    spawn(place, "grep -E '^Sig(Ign|Blk)' /proc/self/status; echo end", out)
    wait_for(lambda: text(place, out).endswith("end\n"), "its output")
    masks = [int(line.split()[1], 16) for line in text(place, out).splitlines()[:-1]]
    # 32 and 33 are the C library's own.
    blocked, ignored = (mask & ~(3 << 31) for mask in masks)
    assert blocked == 0
    # Where there is nothing but busybox, `&` is the only way, and that ignores SIGINT and SIGQUIT.
    assert ignored in ({0, 0b110} if place.name == "bare" else {0})


def test_it_outlives_the_connection(place: Place) -> None:
    folder = place.folder()
    process = spawn(place, "sleep 1.5; echo done; exec sleep 300", folder / "out")
    place.host.close()
    if (disconnect := getattr(place.host, "disconnect", None)) is not None:
        disconnect()
    wait_for(lambda: text(place, folder / "out") == "done\n", "it to go on")
    assert place.host.alive([process]) == [True]
    assert place.host.signal(process, signal.SIGKILL)


def test_where_nothing_can_be_started(place: Place) -> None:
    folder = place.folder()
    with pytest.raises(HostError, match="cannot start /bin/sh"):
        place.host.spawn(["/bin/sh", "-c", ":"], env={}, output=folder / "missing" / "out")


# ---- who lives ----


def test_a_process_and_one_that_has_its_number(place: Place) -> None:
    process = spawn(place, "exec sleep 300", place.folder() / "out")
    others = [
        process,
        ProcessId(process.pid, str(int(process.started) + 1), process.boot),
        ProcessId(process.pid, process.started, "another"),
        ProcessId(2**22 - 7, "1", process.boot),
        process,
    ]
    assert place.host.alive(others) == [True, False, False, False, True]
    assert place.host.alive([]) == []
    for other in others[1:4]:
        assert not place.host.signal(other, signal.SIGKILL)
    assert place.host.alive([process]) == [True]
    assert place.host.signal(process, signal.SIGTERM)
    wait_for(lambda: place.host.alive([process]) == [False], "it to end")
    assert not place.host.signal(process, signal.SIGTERM)


def test_a_zombie_does_not_live(place: Place) -> None:
    out = place.folder() / "out"
    parent = spawn(place, "sleep 0 & echo $!; exec sleep 300", out)
    wait_for(lambda: text(place, out), "the child's number")
    pid = int(text(place, out))

    def state() -> bytes:
        (found,) = place.host.read_many([Path(f"/proc/{pid}/stat")])
        return found.data if found else b""

    wait_for(lambda: b") Z " in state(), "a zombie")
    started = state().rpartition(b")")[2].split()[19].decode()
    assert place.host.alive([ProcessId(pid, started, parent.boot)]) == [False]
    place.host.signal(parent, signal.SIGKILL)


def test_a_boot_id(place: Place) -> None:
    assert len(place.host.boot_id()) == 36
    here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (place.host.boot_id() == here) == (place.machine is None)


# ---- being told ----


def readable(fd: int, seconds: float) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


def test_the_end_of_a_process_is_told(place: Place) -> None:
    folder = place.folder()
    first = spawn(
        place,
        "while [ ! -e stop ]; do sleep 0.05; done".replace("stop", f"{folder}/stop"),
        folder / "out",
    )
    second = spawn(place, "exec sleep 300", folder / "out")
    watch = place.host.watch([first, second])
    assert watch.ended() == set()
    assert not readable(watch.fileno(), 0.3) or watch.ended() == set()
    place.write(folder / "stop", b"")
    begun = time.monotonic()
    while not watch.ended():
        assert readable(watch.fileno(), 20), "nobody told"
    assert watch.ended() == {first}
    assert time.monotonic() - begun < 10
    assert place.host.signal(second, signal.SIGKILL)
    wait_for(lambda: watch.ended() == {first, second}, "the other to end")
    watch.close()


def test_being_told_does_not_disturb_answers(place: Place) -> None:
    out = place.folder() / "out"
    many = [spawn(place, f"sleep 0.{number + 3}", out) for number in range(5)]
    watch = place.host.watch(many)
    while watch.ended() != set(many):
        assert place.host.run(["seq", "20000"]).out.count(b"\n") == 20000
    watch.close()


def test_one_that_has_ended_before_is_told_at_once(place: Place) -> None:
    process = spawn(place, "exec sleep 300", place.folder() / "out")
    place.host.signal(process, signal.SIGKILL)
    wait_for(lambda: place.host.alive([process]) == [False], "it to end")
    watch = place.host.watch([process])
    wait_for(lambda: watch.ended() == {process}, "it to be told", timeout=10)
    watch.close()


# ---- files that grow ----


def read(stream: Stream, size: int, seconds: float = 20.0) -> bytes:
    """What comes, up to `size` bytes."""
    found = b""
    deadline = time.monotonic() + seconds
    while len(found) < size and time.monotonic() < deadline:
        readable(stream.fileno(), 0.5)
        data = stream.read()
        if data == b"":
            break
        found += data or b""
    return found


def test_a_growing_file_is_followed(place: Place) -> None:
    folder = place.folder()
    data = os.urandom(5000)
    script = f"until [ -e {folder}/go ]; do sleep 0.05; done; cat {folder}/more"
    place.write(folder / "out", data)
    place.write(folder / "more", data)
    spawn(place, script, folder / "out")
    stream = place.host.follow(folder / "out", 1000)
    assert read(stream, 4000) == data[1000:]
    assert stream.read() is None
    place.write(folder / "go", b"")
    assert read(stream, 5000) == data
    stream.close()


def test_a_file_that_is_not_there_yet_is_waited_for(place: Place) -> None:
    folder = place.folder()
    stream = place.host.follow(folder / "later", 0)
    assert not readable(stream.fileno(), 0.3) or stream.read() is None
    place.write(folder / "later", b"come\n")
    assert read(stream, 5) == b"come\n"
    stream.close()


def test_a_large_file_is_followed_whole(place: Place) -> None:
    folder = place.folder()
    data = os.urandom(1 << 20) * 20
    place.write(folder / "large", data)
    stream = place.host.follow(folder / "large", 0)
    assert read(stream, len(data), 60.0) == data
    stream.close()


def test_nobody_follows_after_the_end(place: Place) -> None:
    folder = place.folder()
    place.write(folder / "followed-file", b"x")

    def followers() -> list[str]:
        return [line for line in commands(place) if re.search(r"\bfollowed-(file|never)", line)]

    stream = place.host.follow(folder / "followed-file", 0)
    waiting = place.host.follow(folder / "followed-never", 0)
    assert read(stream, 1) == b"x"
    assert followers()
    stream.close()
    waiting.close()
    wait_for(lambda: not followers(), "the follower to end")


# ---- ports ----

ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data.upper())
"""


@contextmanager
def echo_server(place: Place, port: int) -> Iterator[None]:
    """What listens there on loopback, and answers with capitals; it needs no program there."""
    pid = place.machine.pid if place.machine else 0
    command = inside(pid, sys.executable, "-c", ECHO, "127.0.0.1", str(port), only_network=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stdout.readline() == b"ready\n"
        yield
        server.kill()


def ask(address: tuple[str, int] | str, data: bytes) -> bytes:
    """What comes back."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(20)
        connection.connect(address)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def test_a_port_there_is_reached_from_here(place: Place, tmp_path: Path) -> None:
    if place.machine is None:
        with (
            pytest.raises(HostError, match="on this machine"),
            place.host.forward(("127.0.0.1", 1), ("127.0.0.1", 2)),
        ):
            pass
        return
    port, local = 8123, ("127.0.0.1", free_port())
    with echo_server(place, port):
        with place.host.forward(local, ("127.0.0.1", port)):
            assert ask(local, b"hello") == b"HELLO"
            assert ask(local, b"x" * 3_000_000) == b"X" * 3_000_000
        with pytest.raises(ConnectionRefusedError):
            ask(local, b"hello")
        path = tmp_path / "s"
        with place.host.forward(path, ("127.0.0.1", port)):
            assert ask(str(path), b"hello") == b"HELLO"
        assert not path.exists()


def test_a_port_that_nobody_listens_on_yet(place: Place) -> None:
    if place.machine is None:
        return
    port, local = 8124, ("127.0.0.1", free_port())
    with place.host.forward(local, ("127.0.0.1", port)):
        try:
            assert ask(local, b"hello") == b""
        except OSError:
            pass  # closed before all was said
        with echo_server(place, port):
            assert ask(local, b"hello") == b"HELLO"


def test_a_port_that_is_taken_here(place: Place) -> None:
    if place.machine is None:
        return
    with socket.create_server(("127.0.0.1", 0)) as taken:
        local: tuple[str, int] = taken.getsockname()
        with pytest.raises(HostError, match="cannot be forwarded"):  # noqa: SIM117
            with place.host.forward(local, ("127.0.0.1", 8125)):
                pass
    assert place.host.run(["echo", "well"]).out == b"well\n"


# ---- what is there ----


def test_uv(place: Place) -> None:
    if place.name == "bare":
        with pytest.raises(HostError, match="has no uv, and this machine's does not run there"):
            place.host.uv()
        return
    found = place.host.uv()
    if place.machine is None:
        assert found
        assert Path(found).is_file()
    else:
        # Where there was none it has been put.
        own = "/usr/local/bin/uv" if place.machine.spec.uv else f"{place.host.root}/bin/uv"
        assert found == own
        assert place.host.run([found, "--version"]).out.startswith(b"uv ")


def test_where_the_folder_of_ours_lies(place: Place) -> None:
    if place.machine is None:
        assert place.host.root.is_absolute()
    else:
        assert place.host.root == Path(f"/home/{place.user}/.dstack")
