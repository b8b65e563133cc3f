"""What every host does, whether it is this machine or one that `ssh` reaches."""

from __future__ import annotations

import io
import select
import signal
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.errors import HostError
from dstack.hosts.base import File, Host, ProcessId, Stream, Watch
from dstack.hosts.local import LocalHost
from tests.support import wait_for

ALL_BYTES = bytes(range(256)) + b"it's %s \\n \\0 'two'\n\n"
SH = "/bin/sh"


def sh(script: str) -> list[str]:
    return [SH, "-c", script]


def content(host: Host, path: Path) -> bytes | None:
    (found,) = host.read_many([path])
    return found.data if found else None


def process(host: Host, pid: int) -> ProcessId:
    stat = content(host, Path(f"/proc/{pid}/stat"))
    assert stat is not None
    return ProcessId(pid, stat.rpartition(b")")[2].split()[19].decode(), host.boot_id())


def start(host: Host, script: str, **env: str) -> ProcessId:
    """Start it in the background; its output is in `log` below the host's root."""
    host.delete(host.root / "go")
    # It waits until it is known: what has ended has no identity any more.
    script = f"until [ -e {host.root}/go ]; do sleep 0.02; done\n{script}"
    pid = host.spawn([SH, "-c", script], env=env, output=host.root / "log")
    one = process(host, pid)
    host.put(host.root, {"go": File(b"")})
    return one


def gone(host: Host, one: ProcessId) -> bool:
    return not host.alive([one])[0]


@pytest.fixture
def place(host: Host) -> Path:
    """A folder on the host that is not there yet, with a name that shells could stumble over."""
    return host.root / "runs" / "it's $HOME; a *"


# ---- commands ----


def test_a_command_has_its_output_and_its_code(host: Host) -> None:
    done = host.run(sh("echo out; echo err >&2; exit 3"))
    assert (done.code, done.out, done.err) == (3, b"out\n", b"err\n")
    assert host.run(["printf", "%s|", "a b", "", "c'd", "$HOME", "-e"]).out == b"a b||c'd|$HOME|-e|"


def test_output_may_be_any_bytes_and_long(host: Host) -> None:
    done = host.run(sh("printf 'no newline\\0\\377'; head -c 3000000 /dev/zero; echo end >&2"))
    assert done.out == b"no newline\0\xff" + bytes(3_000_000)
    assert done.err == b"end\n"


def test_a_command_reads_nothing(host: Host) -> None:
    assert host.run(["cat"], timeout=20).out == b""
    assert host.run(["echo", "the next one"]).out == b"the next one\n"


def test_a_signal_that_ended_it_is_told(host: Host) -> None:
    assert host.run(sh("kill -9 $$")).code == -9
    assert host.run(sh("kill -TERM $$")).err == b""


def test_the_environment_given_is_all_there_is(host: Host) -> None:
    done = host.run(["env"], env={"A": "1 'b'\n$c", "PATH": "/usr/bin:/bin"})
    assert b"A=1 'b'\n$c\n" in done.out
    names = {line.partition(b"=")[0] for line in done.out.splitlines()} - {b"$c"}
    assert names - {b"_", b"PWD", b"SHLVL", b"OLDPWD"} == {b"A", b"PATH"}
    assert b"HOME=" in host.run(["env"]).out


def test_what_cannot_be_run_is_an_error(host: Host) -> None:
    with pytest.raises(HostError, match="cannot run no-such-command"):
        host.run(["no-such-command"])
    with pytest.raises(HostError, match="cannot run /etc/passwd"):
        host.run(["/etc/passwd"])


def test_a_command_that_takes_too_long_is_killed(host: Host) -> None:
    with pytest.raises(HostError, match="did not answer within 1 s"):
        host.run(sh(f"echo $$ >{host.root}/pid; exec sleep 60"), timeout=1.0)
    pid = content(host, host.root / "pid")
    assert pid
    wait_for(lambda: gone(host, ProcessId(int(pid))), "the command to be killed")
    assert host.run(["echo", "again"]).out == b"again\n"


# ---- files ----


@pytest.fixture(autouse=True)
def root(host: Host) -> None:
    host.put(host.root, {"here": File(b"")})


def test_files_are_written_and_read(host: Host, place: Path) -> None:
    files = {
        "all": File(ALL_BYTES),
        "no": File(b""),
        "big": File(b"x" * 60_000),
        "a b'c": File(b"1"),
    }
    host.put(place, files)
    assert [content(host, place / name) for name in files] == [f.data for f in files.values()]
    assert sorted(host.list_folder(place)) == sorted(files)
    (found,) = host.read_many([place / "all"])
    assert found
    assert abs(found.at - time.time()) < 60
    host.put(place, {"all": File(b"new")})
    assert content(host, place / "all") == b"new"


def test_modes_and_folders_are_private(host: Host, place: Path) -> None:
    host.put(place, {"x": File(b"", mode=0o755), "y": File(b"")})
    done = host.run(["stat", "-c", "%a", str(place), str(place / "x"), str(place / "y")])
    assert done.out.split() == [b"700", b"755", b"600"]


def test_what_is_to_be_kept_is_not_written_over(host: Host, place: Path) -> None:
    host.put(place, {"k": File(b"first", keep=True)})
    host.put(place, {"k": File(b"second", keep=True), "other": File(b"2")})
    assert content(host, place / "k") == b"first"
    assert content(host, place / "other") == b"2"
    assert sorted(host.list_folder(place)) == ["k", "other"]


def test_links_folders_and_what_is_missing(host: Host, place: Path) -> None:
    host.put(place, {"file": File(b"f")})
    host.run(["ln", "-s", "1:2:3 ", str(place / "link")])
    found = host.read_many([place, place / "link", place / "none", place / "file" / "x"])
    assert [each and each.data for each in found] == [b"", b"1:2:3 ", None, None]


def test_a_file_of_the_kernel(host: Host) -> None:
    boot = content(host, Path("/proc/sys/kernel/random/boot_id"))
    assert boot
    assert boot.decode().strip() == host.boot_id()
    assert content(host, Path("/proc/999999999/stat")) is None


def test_what_cannot_be_written_is_an_error(host: Host) -> None:
    with pytest.raises(HostError, match="cannot write"):
        host.put(Path("/proc/nothing"), {"x": File(b"")})
    host.put(host.root, {"file": File(b"")})
    with pytest.raises(HostError, match="cannot write"):
        host.put(host.root / "file", {"x": File(b"")})


def test_deleting(host: Host, place: Path) -> None:
    host.put(place, {"x": File(b"")})
    host.put(place / "locked", {"y": File(b"")})
    host.run(["chmod", "000", str(place / "locked")])
    host.delete(place / "none")
    host.delete(place / "x")
    assert host.list_folder(place) == ["locked"]
    host.delete(place)
    assert host.read_many([place]) == [None]
    assert host.list_folder(place) == []


def test_a_link_is_deleted_and_not_what_it_leads_to(host: Host, place: Path) -> None:
    host.put(place, {"x": File(b"stays")})
    host.run(["ln", "-s", str(place), str(host.root / "link")])
    host.delete(host.root / "link")
    assert content(host, place / "x") == b"stays"


def test_a_part_of_a_file(host: Host, place: Path) -> None:
    host.put(place, {"x": File(ALL_BYTES)})
    assert host.read_from(place / "x", 10, 20) == ALL_BYTES[10:30]
    assert host.read_from(place / "x", len(ALL_BYTES), 20) == b""
    assert host.read_from(place / "x", 250, 1 << 20) == ALL_BYTES[250:]
    assert host.read_from(place / "none", 0, 1) is None


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o640
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "a/b"
        tar.addfile(link)
    return out.getvalue()


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_an_archive_is_unpacked(host: Host, place: Path, size: int) -> None:
    data = ALL_BYTES * (size // len(ALL_BYTES) + 1)
    packed = archive({"a/b": data, "é": b"2"})
    parts = [packed[at : at + 100_000] for at in range(0, len(packed), 100_000)]
    host.put_tree(parts, place)
    assert host.read_from(place / "a" / "b", 0, len(data) + 1) == data
    assert content(host, place / "link") == b"a/b"
    done = host.run(["stat", "-c", "%a", str(place), str(place / "é")])
    assert done.out.split() == [b"700", b"640"]


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_an_archive_that_cannot_be_unpacked_is_an_error(host: Host, place: Path, size: int) -> None:
    with pytest.raises(HostError, match="cannot write"):
        host.put_tree([b"this is no archive" * size], place)
    with pytest.raises(HostError, match="cannot write"):
        host.put_tree([archive({"x": bytes(size)})], Path("/proc/nothing"))
    assert host.run(["echo", "again"]).out == b"again\n"


def test_an_archive_whose_maker_fails_is_no_hang(host: Host, place: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield archive({"x": bytes(200_000)})[:150_000]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        host.put_tree(parts(), place)
    assert host.run(["echo", "again"]).out == b"again\n"


def test_in_a_batch_nothing_follows_what_failed(host: Host, place: Path) -> None:
    with host.batch():
        host.put(place / "1", {"x": File(b"1")})
        host.put_tree([archive({"t": b"2"})], place / "2")
        host.delete(place / "1" / "x")
        host.put(place / "1", {"y": File(b"3")})
        assert host.list_folder(place / "1") == ["y"]
    assert content(host, place / "2" / "t") == b"2"
    with pytest.raises(HostError, match="cannot write"), host.batch():
        host.put(Path("/proc/nothing"), {"x": File(b"")})
        host.put(place, {"x": File(b"")})
    assert host.read_many([place / "x"]) == [None]
    host.put(place, {"x": File(b"")})


# ---- processes ----


def test_a_spawned_process_is_its_own_and_outlives_us(host: Host) -> None:
    one = start(
        host, "echo $$ $MARK; trap 'echo told; exit' INT; while :; do sleep 0.05; done", MARK="a b"
    )
    assert host.alive(
        [one, ProcessId(one.pid, "1", one.boot), ProcessId(one.pid, one.started, "x")]
    )
    wait_for(lambda: content(host, host.root / "log"), "its output")
    assert content(host, host.root / "log") == f"{one.pid} a b\n".encode()
    stat = content(host, Path(f"/proc/{one.pid}/stat"))
    assert stat is not None
    group, session = stat.rpartition(b")")[2].split()[2:4]
    assert (int(group), int(session)) == (one.pid, one.pid)
    host.close()
    assert host.alive([one]) == [True]
    assert host.signal(ProcessId(one.pid, "1", one.boot), signal.SIGKILL) is False
    assert host.signal(one, signal.SIGKILL) is True
    wait_for(lambda: gone(host, one), "its end")
    assert host.signal(one, signal.SIGTERM) is False
    assert host.alive([one, one]) == [False, False]


def test_a_spawned_process_has_the_environment_of_a_run(host: Host) -> None:
    one = start(host, "env; umask; pwd; cat", A="1", PATH="/usr/bin:/bin:/x")
    wait_for(lambda: gone(host, one), "its end")
    said = (content(host, host.root / "log") or b"").decode().splitlines()
    assert "A=1" in said
    assert "PATH=/usr/bin:/bin:/x" in said
    assert [line for line in said if line.startswith("HOME=")]
    assert not [line for line in said if line.startswith(("d_", "SSH_CONNECTION", "DSTACK_"))]


def test_no_signal_is_ignored_in_a_spawned_process(
    host: Host, request: pytest.FixtureRequest
) -> None:
    one = start(host, "exec grep SigIgn /proc/self/status")
    wait_for(lambda: gone(host, one), "its end")
    ignored = int((content(host, host.root / "log") or b"").split()[1], 16) & 0x7FFFFFFF
    # Where there is nothing but busybox, `&` is the only way, and that ignores SIGINT and SIGQUIT.
    bare = request.node.callspec.params["host"] == "bare"
    assert ignored in ({0, 0b110} if bare else {0})


def test_what_cannot_be_spawned_is_an_error(host: Host) -> None:
    with pytest.raises(HostError, match="cannot start"):
        host.spawn(sh("true"), env={}, output=Path("/nowhere/log"))


def test_survey_reads_and_tells_who_lives(host: Host, place: Path) -> None:
    one = start(host, "exec sleep 60")
    host.put(place, {"x": File(b"1")})
    links = {
        "lives": f"{one.pid}:{one.started}:{one.boot}",
        "old": f"{one.pid}:1:{one.boot}",
        "no": "no",
    }
    for name, target in links.items():
        host.run(["ln", "-s", target, str(place / name)])
    paths = [place / "x", place / "none", place / "lives"]
    found, alive = host.survey(paths, [place / name for name in (*links, "none")])
    assert [each and each.data for each in found] == [b"1", None, links["lives"].encode()]
    assert alive == [True, False, False, False]
    host.signal(one, signal.SIGKILL)
    wait_for(lambda: host.survey([], [place / "lives"]) == ([], [False]), "its end")
    assert host.survey([], []) == ([], [])


def ready(thing: Stream | Watch, seconds: float) -> bool:
    return bool(select.select([thing], [], [], seconds)[0])


def test_the_end_of_a_process_is_told(host: Host) -> None:
    one = start(host, "sleep 0.5")
    two = start(host, "exec sleep 60")
    watch = host.watch([one, two])
    while not watch.ended():
        assert ready(watch, 20)
    assert watch.ended() == {one}
    watch.close()
    again = host.watch([one])
    wait_for(lambda: again.ended() == {one}, "the end that has been")
    again.close()
    killed = host.watch([two])
    host.signal(two, signal.SIGKILL)
    wait_for(lambda: killed.ended() == {two}, "the end of the other")
    killed.close()


def test_being_told_does_not_disturb_answers(host: Host) -> None:
    many = [start(host, f"sleep 0.{n}") for n in range(5)]
    watch = host.watch(many)
    while watch.ended() != set(many):
        assert host.run(["seq", "20000"]).out.count(b"\n") == 20000
    watch.close()


# ---- streams ----


def take(stream: Stream, size: int) -> bytes:
    data = bytearray()
    until = time.monotonic() + 30
    while len(data) < size and time.monotonic() < until:
        ready(stream, 5)
        data += stream.read() or b""
    return bytes(data)


def test_a_file_is_followed(host: Host, place: Path) -> None:
    stream = host.follow(place / "log", 3)
    host.put(place, {"log": File(b"abcDEF\0")})
    assert take(stream, 4) == b"DEF\0"
    host.run(sh(f'printf "more\\n" >>"{place}/log"'.replace("$HOME", "\\$HOME")))
    assert take(stream, 5) == b"more\n"
    assert stream.read() is None
    stream.close()


def test_much_is_followed_whole(host: Host) -> None:
    one = start(host, "head -c 30000000 /dev/urandom")
    stream = host.follow(host.root / "log", 0)
    data = take(stream, 30_000_000)
    stream.close()
    wait_for(lambda: gone(host, one), "its end")
    done = host.run(["md5sum", str(host.root / "log")])
    from hashlib import md5

    assert md5(data).hexdigest() == done.out.split()[0].decode()


def test_nothing_is_left_of_a_stream(host: Host) -> None:
    host.put(host.root, {"followed-by-nobody": File(b"x")})
    there = host.follow(host.root / "followed-by-nobody", 0)
    waiting = host.follow(host.root / "followed-in-vain", 0)
    assert take(there, 1) == b"x"
    there.close()
    waiting.close()

    def none() -> bool:
        listed = host.run(
            sh("for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$p; echo; done 2>/dev/null")
        )
        return b"followed-" not in listed.out

    wait_for(none, "everything that followed to end")


def test_an_address_there_is_reached_from_here(host: Host, tmp_path: Path) -> None:
    if isinstance(host, LocalHost):
        with host.forward(("127.0.0.1", 80), ("127.0.0.1", 80)):
            pass
        with pytest.raises(HostError), host.forward(("127.0.0.1", 81), ("127.0.0.1", 80)):
            pass
        return
    there = ("127.0.0.1", 22)  # its own sshd greets whoever comes

    def says(family: int, address: object) -> bytes:
        with socket.socket(family) as client:
            client.settimeout(5)
            try:
                client.connect(address)  # type: ignore[arg-type]
                return client.recv(10)
            except OSError:
                return b""

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failing = host.forward(("127.0.0.1", port), there)
        with pytest.raises(HostError, match="cannot be forwarded"), failing:
            pass
    with host.forward(("127.0.0.1", port), there):
        assert says(socket.AF_INET, ("127.0.0.1", port)) == b"SSH-2.0-Op"
    assert says(socket.AF_INET, ("127.0.0.1", port)) == b""
    with host.forward(tmp_path / "s", there):
        assert says(socket.AF_UNIX, str(tmp_path / "s")) == b"SSH-2.0-Op"
    assert not (tmp_path / "s").exists()
