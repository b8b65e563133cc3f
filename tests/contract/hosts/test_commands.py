"""Running commands on a host, to their end."""

from __future__ import annotations

import time

import pytest

from dstack.errors import HostError
from tests.contract.hosts.places import ALL_PLACES, Place, commands
from tests.support import wait_for

pytestmark = pytest.mark.parametrize("place", ALL_PLACES, indirect=True, scope="module")

AWKWARD = [
    "",
    " ",
    "a b",
    "it's",
    '"quoted"',
    "$HOME `id` $(id)",
    "back\\slash \\n",
    "two\nlines",
    "tab\tand\rreturn",
    "-n",
    "--",
    "*",
    "ümläut ✓",
    "a" * 100_000,
    "end 0",
    "!history",
]


def test_output_and_code(place: Place) -> None:
    done = place.host.run(["sh", "-c", "printf out; printf err >&2; exit 3"])
    assert (done.code, done.out, done.err) == (3, b"out", b"err")


def test_every_byte_comes_through(place: Place) -> None:
    octal = "".join(f"\\{n:03o}" for n in range(256))
    script = f"printf '{octal}'; printf '{octal}' >&2"
    done = place.host.run(["sh", "-c", script])
    assert done.out == bytes(range(256))
    assert done.err == bytes(range(256))


def test_much_output(place: Place) -> None:
    done = place.host.run(["sh", "-c", "seq 1 400000; echo end; seq 1 1000 >&2"])
    assert done.out == b"".join(b"%d\n" % n for n in range(1, 400001)) + b"end\n"
    assert done.err == b"".join(b"%d\n" % n for n in range(1, 1001))


def test_output_without_a_last_newline_and_none(place: Place) -> None:
    assert place.host.run(["printf", "x\ny"]).out == b"x\ny"
    assert place.host.run(["true"]).out == b""
    assert place.host.run(["echo"]).out == b"\n"


def test_arguments_arrive_as_they_are(place: Place) -> None:
    done = place.host.run(["sh", "-c", "printf '%s\\0' \"$@\"", "sh", *AWKWARD])
    assert done.out.decode().split("\0")[:-1] == AWKWARD


def test_nothing_comes_on_its_input(place: Place) -> None:
    done = place.host.run(["cat"], timeout=10)
    assert (done.code, done.out) == (0, b"")


def test_a_signal_is_told_from_an_exit(place: Place) -> None:
    assert place.host.run(["sh", "-c", "kill -9 $$"]).code == -9
    assert place.host.run(["sh", "-c", "kill -15 $$"]).code == -15
    assert place.host.run(["sh", "-c", "exit 255"]).code == 255
    assert place.host.run(["false"]).code == 1


def test_a_program_that_is_not_there(place: Place) -> None:
    with pytest.raises(HostError, match="cannot run no-such-program: "):
        place.host.run(["no-such-program", "x"])
    with pytest.raises(HostError, match="cannot run /etc/passwd: "):
        place.host.run(["/etc/passwd"])
    # The same code from a program that is there means what the program means.
    assert place.host.run(["sh", "-c", "exit 127"]).code == 127
    assert place.host.run(["sh", "-c", "nothing-here"]).code == 127


def test_the_environment_is_exactly_what_is_given(place: Place) -> None:
    given = {"PATH": "/usr/bin:/bin", "AWKWARD": 'it\'s\n$HOME \\ "x" ✓', "EMPTY": ""}
    done = place.host.run(["sh", "-c", 'printf "%s|%s" "$AWKWARD" "$EMPTY"; echo; env'], env=given)
    value = f"{given['AWKWARD']}|\n".encode()
    assert done.out.startswith(value)
    names = {line.partition(b"=")[0] for line in done.out[len(value) :].splitlines()}
    # What shells set by themselves, and the second line of a value.
    assert names - {b"PWD", b"OLDPWD", b"SHLVL", b"_", b'$HOME \\ "x" \xe2\x9c\x93'} == {
        b"PATH",
        b"AWKWARD",
        b"EMPTY",
    }


def test_one_that_takes_too_long_is_ended(place: Place) -> None:
    marker = "4711.25"
    begun = time.monotonic()
    with pytest.raises(HostError, match=r"sleep did not answer within 0.5 s"):
        place.host.run(["sleep", marker], timeout=0.5)
    assert time.monotonic() - begun < 20

    mine = f"sleep {marker}"
    wait_for(lambda: mine not in commands(place), "the command to be gone")
    # And the next ones are answered as if nothing had been.
    assert place.host.run(["echo", "next"]).out == b"next\n"


def test_many_one_after_the_other(place: Place) -> None:
    for number in range(50):
        assert place.host.run(["echo", str(number)]).out == b"%d\n" % number
