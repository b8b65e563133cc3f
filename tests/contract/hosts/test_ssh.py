"""What is particular to a machine that `ssh` reaches: how it is found, and how it is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.errors import HostError, HostRefused, HostUnreachable
from dstack.hosts import ssh_connection, ssh_master
from dstack.hosts.base import File
from dstack.hosts.ssh import SshHost
from dstack.hosts.ssh_ciphers import has_aes
from dstack.hosts.ssh_options import SshOptions, ssh_argv
from tests.contract.hosts.conftest import SshHostMaker
from tests.hosts.client import Client
from tests.hosts.services import Hosts
from tests.support import wait_for

ALIASES = ["alpha.other", "alpha.fish", "alpha.csh", "alpha.noisy", "alpha.root", "inner", "nogit"]


def masters(host: SshHost) -> list[int]:
    """The processes that hold the shared connection."""
    title = f"ssh: {host.master.prefix}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().startswith(title):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def said(host: SshHost, word: str = "hello") -> bytes:
    return host.run(["echo", word]).out


# ---- getting there ----


@pytest.mark.parametrize("alias", ALIASES)
def test_login_shells_users_and_jump_hosts(ssh_host: SshHostMaker, alias: str) -> None:
    host = ssh_host(alias)
    host.put(host.root / "a b", {"it's": File(b"\\n'\0\xff$x\n")})
    (found,) = host.read_many([host.root / "a b" / "it's"])
    assert found
    assert found.data == b"\\n'\0\xff$x\n"
    done = host.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.code, done.out, done.err) == (7, b"out\n", b"err\n")
    assert host.root.name == ".dstack"
    assert (
        host.run(["stat", "-c", "%a %u", str(host.root)]).out == f"700 {host.hello.uid}\n".encode()
    )


def test_all_goes_over_one_connection(hosts: Hosts, ssh_host: SshHostMaker) -> None:
    first, second = ssh_host("alpha"), ssh_host("alpha")
    assert said(first) == said(second)
    assert len(masters(first)) == 1
    first.close()
    assert said(second) == b"hello\n"
    log = hosts["alpha"].path("/var/log/sshd.log")
    assert log.exists()
    second.disconnect()
    wait_for(lambda: not masters(second), "the shared connection to end")


def test_a_host_and_a_port_as_they_are_written(
    ssh: Client, ssh_host: SshHostMaker, hosts: Hosts
) -> None:
    address = hosts["alpha"].link.address.far
    host = ssh_host(f"other@{address}:22", identity_file=str(ssh.folder / "id"))
    assert host.run(["id", "-un"]).out == b"other\n"


def test_the_key_that_is_named_is_the_one_taken(ssh: Client, ssh_host: SshHostMaker) -> None:
    assert said(ssh_host("alpha.wrongkey", identity_file=str(ssh.folder / "id")))


def test_where_the_folder_lies_there(ssh_host: SshHostMaker) -> None:
    assert ssh_host("alpha").root == Path("/home/me/.dstack")
    assert ssh_host("alpha", root="~/x y/z").root == Path("/home/me/x y/z")
    assert ssh_host("alpha", root="/tmp/q").root == Path("/tmp/q")


def test_a_folder_that_is_not_ours_is_not_taken(hosts: Hosts, ssh_host: SshHostMaker) -> None:
    hosts["alpha"].admin("mkdir", "-m", "777", "/tmp/theirs")
    with pytest.raises(HostError, match="/tmp/theirs belongs to another user"):
        said(ssh_host("alpha", root="/tmp/theirs"))
    hosts["alpha"].admin("touch", "/home/me/file")
    with pytest.raises(HostError, match="/home/me/file is not a folder"):
        said(ssh_host("alpha", root="~/file"))
    with pytest.raises(HostError, match="/root/a/b cannot be made: /root cannot be written to"):
        said(ssh_host("alpha", root="/root/a/b"))


def test_a_folder_that_others_can_read_is_closed(hosts: Hosts, ssh_host: SshHostMaker) -> None:
    hosts["alpha"].admin("install", "-d", "-o", "me", "-m", "755", "/home/me/.dstack")
    said(ssh_host("alpha"))
    assert hosts["alpha"].path("/home/me/.dstack").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("alias", "sentence", "kind"),
    [
        ("nowhere", "there is no machine of that name", HostUnreachable),
        ("alpha.wrongkey", "it does not let this user in: Permission denied", HostRefused),
        ("alpha.locked", "it does not let this user in", HostRefused),
        ("alpha.typed", "it does not let this user in", HostRefused),
        ("alpha.stranger", "its host key is not known here", HostRefused),
        ("127.0.0.1:9", "nothing answers at its ssh port", HostUnreachable),
    ],
)
def test_why_it_cannot_be_reached(
    ssh_host: SshHostMaker, alias: str, sentence: str, kind: type[HostError]
) -> None:
    with pytest.raises(HostError) as caught:
        said(ssh_host(alias))
    assert caught.value.message.startswith(f"{alias} cannot be reached: {sentence}")
    assert type(caught.value) is kind
    assert "\n" not in caught.value.message
    if isinstance(caught.value, HostRefused):
        assert caught.value.asks
        assert caught.value.hint


def test_another_host_key_is_never_accepted(hosts: Hosts, ssh_host: SshHostMaker) -> None:
    hosts["alpha"].change_key()
    with pytest.raises(HostRefused, match="its host key is another one than before") as caught:
        said(ssh_host("alpha"))
    assert not caught.value.asks
    assert "ssh-keygen -R" in (caught.value.hint or "")


def test_without_ssh_it_says_so(
    ssh_host: SshHostMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host = ssh_host("alpha")
    monkeypatch.setattr(host.master, "env", {"PATH": str(tmp_path)})
    with pytest.raises(HostError, match="cannot run ssh") as caught:
        said(host)
    assert caught.value.hint == "install OpenSSH's client"


def test_nothing_weakens_what_ssh_checks() -> None:
    words = ssh_argv(SshOptions("me@box:22", "~/.ssh/k"), "/c/%C", ask=False)
    assert not [w for w in words if "StrictHostKey" in w or "KnownHosts" in w or "Check" in w]
    assert words[-1] == "box"


def test_a_host_that_computes_aes_fast_is_offered_it_first(
    ssh: Client, ssh_host: SshHostMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ssh.env().items():
        monkeypatch.setenv(name, value)
    # These hosts have this machine's processor.
    first = "aes256-gcm@openssh.com" if has_aes() else offered(["ssh", "alpha"])[0]
    host = ssh_host("alpha")
    said(host)
    assert host.hello.aes is has_aes()
    host.disconnect()
    said(host)
    assert offered(host.master.argv())[0] == first
    assert sorted(offered(host.master.argv())) == sorted(offered(["ssh", "alpha"]))
    # What the user chose stands.
    host.disconnect()
    ssh.config.write_text(f"Ciphers aes128-ctr,aes256-gcm@openssh.com\n{ssh.config.read_text()}")
    again = ssh_host("alpha")
    said(again)
    assert offered(again.master.argv()) == ["aes128-ctr", "aes256-gcm@openssh.com"]


def offered(argv: list[str]) -> list[str]:
    """The ciphers that this command line would offer."""
    done = subprocess.run([argv[0], "-G", *argv[1:]], capture_output=True, check=True)
    (line,) = [line for line in done.stdout.decode().splitlines() if line.startswith("ciphers ")]
    return line.split()[1].split(",")


# ---- losing it ----


def test_a_connection_that_broke_is_made_anew(hosts: Hosts, ssh_host: SshHostMaker) -> None:
    host = ssh_host("alpha")
    said(host)
    hosts["alpha"].link.reset()
    wait_for(lambda: not masters(host), "the shared connection to break")
    assert said_again(host)
    (master,) = masters(host)
    os.kill(master, signal.SIGKILL)
    assert said_again(host)
    assert len(masters(host)) == 1


@pytest.mark.parametrize("waits", [True, False])
def test_a_connection_that_is_dead_and_does_not_know_is_made_anew(
    hosts: Hosts, ssh_host: SshHostMaker, *, waits: bool
) -> None:
    host = ssh_host("alpha")
    said(host)
    host.close()
    # What holds the connection there is another process than the one that does what is asked.
    mine = [p.pid for p in hosts["alpha"].processes() if p.command == "sshd: me [priv]"]
    assert mine
    for pid in mine:
        os.kill(pid, signal.SIGKILL)
    assert masters(host)
    if waits:
        host.connect()
        wait_for(host.ready, "the connection")
    assert said(host) == b"hello\n"
    assert len(masters(host)) == 1


def said_again(host: SshHost) -> bool:
    """What may be done twice is, by itself."""
    return host.list_folder(Path("/home")) != []


def test_a_stuck_connection_is_replaced(
    ssh_host: SshHostMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = ssh_host("alpha")
    said(host)
    (master,) = masters(host)
    os.kill(master, signal.SIGSTOP)
    monkeypatch.setattr(ssh_connection, "ANSWER", 0.5)
    monkeypatch.setattr(ssh_connection, "CONNECT", 1.0)
    monkeypatch.setattr(ssh_master, "_CONTROL_TIMEOUT", 0.5)
    with pytest.raises(HostUnreachable, match="did not answer"):
        host.read_many([Path("/etc/passwd")])
    monkeypatch.setattr(ssh_connection, "ANSWER", 20.0)
    with pytest.raises(HostUnreachable, match="it does not answer"):
        said(host)
    monkeypatch.setattr(ssh_connection, "CONNECT", 45.0)
    assert said(host) == b"hello\n"
    assert master not in masters(host)


def test_a_dead_link_is_noticed(
    hosts: Hosts, ssh_host: SshHostMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both are longer for users; ssh is told in the same way.
    monkeypatch.setattr("dstack.hosts.ssh_options.KEEP_ALIVE", 1)
    monkeypatch.setattr("dstack.hosts.ssh_options.CONNECT_TIMEOUT", 2)
    host = ssh_host("alpha")
    said(host)
    hosts["alpha"].link.drop()
    try:
        began = time.monotonic()
        with pytest.raises(HostUnreachable):
            host.read_many([Path("/etc/passwd")])
        # By ssh itself, and not because no answer came in time.
        assert time.monotonic() - began < ssh_connection.ANSWER
    finally:
        hosts["alpha"].link.heal()
    assert said_again(host)


def test_who_watches_is_told_that_the_connection_broke(ssh_host: SshHostMaker) -> None:
    import select

    from dstack.hosts.base import ProcessId

    host = ssh_host("alpha")
    pid = host.spawn(["/bin/sleep", "60"], env={}, output=host.root.parent / "log")
    one = ProcessId(pid)
    watch = host.watch([one])
    assert watch.ended() == set()
    (master,) = masters(host)
    os.kill(master, signal.SIGKILL)
    assert select.select([watch], [], [], 20)[0]
    wait_for(lambda: watch.ended() == {one}, "the watch to break")
    watch.close()
    assert host.alive([one]) == [True]
    assert host.signal(one, signal.SIGKILL)


def test_an_interrupted_transfer_leaves_what_came(ssh_host: SshHostMaker) -> None:
    host = ssh_host("alpha")
    said(host)

    def archive() -> Iterator[bytes]:
        for number in range(200):
            if number == 100:
                os.kill(masters(host)[0], signal.SIGKILL)
            yield tar_file(f"f{number}", b"x" * 100_000)

    with pytest.raises(HostUnreachable):
        host.put_tree(archive(), host.root / "sent")
    names = host.list_folder(host.root / "sent")
    assert "f0" in names
    assert "f199" not in names


def tar_file(name: str, data: bytes) -> bytes:
    import tarfile

    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def test_a_full_disk_is_told(hosts: Hosts, ssh_host: SshHostMaker) -> None:
    host = ssh_host("alpha")
    hosts["alpha"].small_disk("1m")
    for size in (2_000, 2_000_000):
        hosts["alpha"].fill() if size < 10_000 else None
        with pytest.raises(HostError, match="No space left on device"):
            host.put(host.root / "x", {"f": File(b"x" * size)})
        with pytest.raises(HostError, match="No space left on device"):
            host.put_tree([tar_file("f", os.urandom(size)) + bytes(1024)], host.root)


def test_nothing_is_left_there_when_we_are_killed(
    hosts: Hosts, ssh: Client, tmp_path: Path
) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from dstack.hosts.ssh import SshHost\n"
        "from dstack.hosts.ssh_options import SshOptions\n"
        f"host = SshHost('a', SshOptions('alpha'), Path({str(tmp_path)!r}))\n"
        "host.follow(Path('/etc/passwd'), 0)\n"
        "host.follow(Path('/home/me/none'), 0)\n"
        "from dstack.hosts.base import ProcessId\n"
        "host.watch([ProcessId(1)])\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": "src"}
    assert ssh.hosts
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env)
    try:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        assert hosts["alpha"].jobs()
    finally:
        child.kill()
        child.communicate()
    wait_for(lambda: not hosts["alpha"].jobs(), "what answered there to end")
    SshHost("a", SshOptions("alpha"), tmp_path).disconnect()


def test_nothing_is_left_there_when_nobody_says_goodbye(
    hosts: Hosts, ssh_host: SshHostMaker
) -> None:
    host = ssh_host("alpha")
    said(host)
    stream = host.follow(Path("/etc/passwd"), 0)
    wait_for(lambda: stream.read() is not None, "the file")
    # Two beats later all is as it was: they are no answers.
    time.sleep(2.5)
    assert host.run(["/bin/sh", "-c", "sleep 2; echo out; echo err >&2"]).err == b"err\n"
    link = hosts["alpha"].link
    link.drop()
    (master,) = masters(host)
    os.kill(master, signal.SIGKILL)
    time.sleep(1)
    link.heal()
    wait_for(lambda: not hosts["alpha"].jobs(), "what waited there to end")
    stream.close()


# ---- uv ----


def test_uv_is_put_where_there_is_none(ssh_host: SshHostMaker) -> None:
    assert ssh_host("alpha").uv() == "/usr/local/bin/uv"
    host = ssh_host("nogit")
    assert host.find_uv() is None
    path = host.uv()
    assert path == "/home/me/.dstack/bin/uv"
    assert host.run([path, "--version"]).out.startswith(b"uv ")
    assert host.list_folder(host.root / "bin") == ["uv"]
    assert ssh_host("nogit").find_uv() == path


def test_uv_that_cannot_run_there_is_no_riddle(ssh_host: SshHostMaker) -> None:
    host = ssh_host("bare")
    # The one that comes with dstack is made for glibc, which is not there.
    with pytest.raises(
        HostError, match=r"bare has no uv, and this machine's does not run there: it needs glibc$"
    ) as caught:
        host.uv()
    assert "or run the task in an image" in (caught.value.hint or "")
    assert host.list_folder(host.root / "bin") == []
