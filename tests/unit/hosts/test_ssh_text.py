"""What is sent to a shell on another machine, and what is read from it; and ssh's own words."""

from __future__ import annotations

import pytest

from dstack.errors import HostError, HostUnreachable
from dstack.hosts.base import Content, File, ProcessId
from dstack.hosts.ssh_ciphers import reorder
from dstack.hosts.ssh_errors import ssh_error
from dstack.hosts.ssh_options import SshOptions, socket_fits, ssh_argv
from dstack.hosts.ssh_requests import (
    Frame,
    address_text,
    environment_text,
    parse_alive,
    parse_hello,
    parse_keepers,
    parse_look,
    parse_read,
    put_text,
    quote,
    reason,
)

HELLO = {
    "root": b"/home/me/.dstack",
    "home": b"/home/me",
    "uid": b"1000\n",
    "system": b"Linux x86_64\n",
    "boot": b"b-1\n",
    "gzip": b"/usr/bin/gzip\n",
    "tar": b"/bin/tar\n",
    "uv": b"",
    "env": b"PATH=/bin\nA=1\n2=3\nB=x=y\n",
}


def test_what_no_command_can_hold_is_refused() -> None:
    with pytest.raises(HostError):
        quote("a\0b")
    for name in ("a/b", "", ".", "..", "--"):
        with pytest.raises(HostError, match="is not the name of a file"):
            put_text("/x", {name: File(b"")})
    with pytest.raises(HostError, match="is not the name of a variable"):
        environment_text({}, {"A-B": "1"}, passed=False)


def test_an_environment_is_what_was_given() -> None:
    own = {"HOME": "/h", "SECRET": "1", "PATH": "/bin", "UID": "7", "LC_X": "c"}
    given_ = {"A": "b c", "PATH": "/x"}
    assert environment_text(own, given_, passed=True) == (
        b"unset SECRET; A='b c' && export A; PATH=/x && export PATH"
    )
    assert environment_text(own, {}, passed=False) == b"unset HOME SECRET PATH LC_X"
    assert environment_text({}, {}, passed=True) == b":"


def frames(**parts: bytes) -> list[Frame]:
    return [Frame(tag, data) for tag, data in parts.items()]


def test_hello() -> None:
    hello = parse_hello(frames(**HELLO))
    assert (hello.root, hello.uid, hello.machine, hello.boot) == (
        "/home/me/.dstack",
        1000,
        "x86_64",
        "b-1",
    )
    assert hello.env == {"PATH": "/bin", "A": "1", "B": "x=y"}
    assert hello.gzip
    for wrong in ({"root": b"relative"}, {"uid": b"?"}, {"system": b"x"}):
        with pytest.raises(HostError, match="does not answer as a POSIX shell"):
            parse_hello(frames(**(HELLO | wrong)))
    with pytest.raises(HostError, match="there is no tar on it"):
        parse_hello(frames(**(HELLO | {"tar": b""})))
    with pytest.raises(HostError, match=r"^/r belongs to another user$"):
        parse_hello([Frame("error /r belongs to another user"), *frames(**HELLO)])


def test_what_was_looked_at() -> None:
    paths = ["/f", "/none", "/l", "/d", "/gone"]
    answer = [
        Frame("file", b"data\n"),
        Frame("missing"),
        Frame("link", b"to\n\n"),
        Frame("folder"),
        Frame("file", b""),
        Frame("times", b"1.5 /f\n2 /l\n3 /d\n"),
    ]
    assert parse_look(answer, paths) == [
        Content(b"data\n", 1.5),
        None,
        Content(b"to\n", 2.0),
        Content(b"", 3.0),
        None,
    ]
    with pytest.raises(HostError, match="cannot read /none: Permission denied"):
        parse_look([Frame("file"), Frame("error Permission denied")], paths)
    with pytest.raises(HostError, match="cannot read /f: cannot be read"):
        parse_look([Frame("file"), Frame("error cannot be read"), Frame("missing")], paths)
    with pytest.raises(HostError, match="does not fit"):
        parse_look([Frame("file")], paths)


def test_what_was_read() -> None:
    def read(size: bytes, data: bytes, limit: int = 100) -> bytes | None:
        return parse_read([Frame("size", size), Frame("data", data)], 10, limit)

    assert parse_read([Frame("none")], 10, 100) is None
    assert read(b"13\n", b"abc") == b"abc"
    assert read(b"13\n", b"abcd") == b"abcd"  # it grew meanwhile
    assert read(b"13\n", b"ab", limit=2) == b"ab"
    assert read(b"7\n", b"") == b""  # it was made shorter by the job
    assert read(b"", b"ab") == b"ab"
    # What reads there may have been killed.
    with pytest.raises(HostError, match="did not send all"):
        read(b"13\n", b"ab")


STATS = (
    b"7 (sh) S 1 7 7 0 -1 4194304 1 2 0 0 0 0 0 0 20 0 1 0 4711 99 1\n"
    b"8 (a) b\n(c) Z 1 7 7 0 -1 4194304 1 2 0 0 0 0 0 0 20 0 1 0 4712 99 1\n"
    b"9 (evil) Z 1\n) R 1 7 7 0 -1 4194304 1 2 0 0 0 0 0 0 20 0 1 0 4713 99 1\n"
)


def test_who_lives() -> None:
    asked = [ProcessId(7, "4711", "b"), ProcessId(7, "1", "b"), ProcessId(7, "4711", "c")]
    assert parse_alive(STATS, asked, "b") == [True, False, False]
    others = [ProcessId(7), ProcessId(8, "4712", "b"), ProcessId(9, "4713"), ProcessId(10)]
    assert parse_alive(STATS, others, "b") == [True, False, True, False]
    assert parse_keepers(b"7:4711:b\n\n7:1:b\nno\n", STATS, "b") == [True, False, False, False]


def test_addresses_for_ssh() -> None:
    assert address_text("127.0.0.1", 80) == "127.0.0.1:80"
    assert address_text("::1", 80) == "[::1]:80"


def test_the_line_that_says_why() -> None:
    assert reason("mkdir: x: Permission denied\n") == "mkdir: x: Permission denied"
    assert reason("sh: 1: printf: I/O error\ncat: write error: No space left on device\n") == (
        "No space left on device"
    )
    assert reason("tar: a: bad\ntar: Exiting with failure status") == "tar: a: bad"
    assert reason("") == "it failed and does not say why"


def test_the_command_line_of_ssh() -> None:
    argv = ssh_argv(SshOptions("me@box:2222", "/k"), "/s/%C", ask=False)
    assert argv[0] == "ssh"
    assert argv[-1] == "box"
    assert " ".join(argv[-7:-1]) == "-i /k -l me -p 2222"
    assert "BatchMode=yes" in argv
    # Whoever falls silent is given up after a quarter of a minute.
    assert {"ConnectTimeout=20", "ServerAliveInterval=5", "ServerAliveCountMax=3"} < set(argv)
    assert "ControlPath=/s/%C" in argv
    assert "BatchMode=yes" not in ssh_argv(SshOptions("box"), "/s/%C", ask=True)
    forwarding = ssh_argv(
        SshOptions("box"), "/s/%C", ask=False, forward=True, extra=["-L", "1:b:2"]
    )
    assert "ClearAllForwardings=yes" not in forwarding
    assert forwarding[-3:] == ["-L", "1:b:2", "box"]


def test_the_fastest_of_the_ciphers_comes_first() -> None:
    default = (
        "chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com"
    )
    assert reorder(default, default) == (
        "aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr"
    )
    assert reorder("chacha20-poly1305@openssh.com,aes256-gcm@openssh.com", default) is None
    assert reorder("aes128-ctr", "aes128-ctr") is None
    assert reorder("aes128-gcm@openssh.com", "aes128-gcm@openssh.com") is None


def test_sockets_have_short_paths() -> None:
    assert socket_fits("/home/somebody/.dstack/ssh")
    assert not socket_fits("/home/" + "x" * 40)
    assert not socket_fits("/home/a b/.dstack/ssh")
    assert not socket_fits("/home/%u/ssh")


# What OpenSSH 8.4 to 9.6 print, and what is said of it.
SAID = {
    "ssh: Could not resolve hostname box: Name or service not known": (
        "there is no machine of that name",
        True,
    ),
    "ssh: connect to host box port 22: Connection refused": (
        "nothing answers at its ssh port",
        True,
    ),
    "ssh: connect to host box port 22: Connection timed out": ("it does not answer", True),
    "Connection timed out during banner exchange\nConnection to 10.0.0.1 port 22 timed out": (
        "it does not answer",
        True,
    ),
    "ssh: connect to host box port 22: No route to host": (
        "there is no way to it: No route to host",
        True,
    ),
    "me@box: Permission denied (publickey,password).": (
        "it does not let this user in: Permission denied (publickey,password)",
        False,
    ),
    "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures": (
        "too many keys were tried",
        False,
    ),
    "No ED25519 host key is known for box and you have requested strict checking.\n"
    "Host key verification failed.": ("its host key is not known here", False),
    "@@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n@@@@@\n"
    "Host key verification failed.": ("its host key is another one than before", False),
    "/home/me/.ssh/config: line 3: Bad configuration option: foo\n"
    "/home/me/.ssh/config: terminating, 1 bad configuration options": (
        "/home/me/.ssh/config: line 3: Bad configuration option: foo",
        False,
    ),
    "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found.": (
        "ssh there and here have no algorithm in common",
        False,
    ),
    "": ("the connection broke off", True),
    "mux_client_request_session: read from master failed: Broken pipe": (
        "the connection broke off",
        True,
    ),
    "kex_exchange_identification: Connection closed by remote host": (
        "kex_exchange_identification: Connection closed by remote host",
        True,
    ),
}


@pytest.mark.parametrize("said", SAID)
def test_what_ssh_says_becomes_a_sentence(said: str) -> None:
    sentence, transient = SAID[said]
    error = ssh_error("me@box", said)
    assert error.message.startswith(f"me@box cannot be reached: {sentence}")
    assert isinstance(error, HostUnreachable) == transient
    assert error.hint is None or "{" not in error.hint
