"""Masking and rewriting must not depend on how the output is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.output.filter import Filter, make_filter
from dstack.output.masking import needles

# Few letters, so that values overlap, repeat and begin like each other.
LETTERS = st.text("ab\nc", max_size=6)
PIECES = st.sampled_from(
    [
        "http",
        "s",
        "://",
        "localhost",
        "0.0.0.0",
        "[::1]",
        ":",
        "8000",
        "80",
        "1",
        "\x1b[1m",
        "h",
        "/",
    ]
)


def one_shot(shown: Filter, text: bytes) -> bytes:
    return shown.feed(text) + shown.flush()


def in_chunks(shown: Filter, text: bytes, cuts: list[int], *, idle: bool = False) -> bytes:
    out = b""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in pairwise(places):
        out += shown.feed(text[start:end])
        if idle:
            out += shown.idle()
    return out + shown.flush()


def show(text: bytes, secrets: list[str] | None = None, **ports: int) -> bytes:
    shown = make_filter(secrets or [], [(int(run[1:]), local) for run, local in ports.items()])
    assert shown is not None
    return one_shot(shown, text)


CUTS = st.lists(st.integers(0, 1000), max_size=8)


@given(st.lists(LETTERS, min_size=1, max_size=4), st.text("ab\nc", max_size=60), CUTS)
def test_masking_does_not_depend_on_chunks(secrets: list[str], text: str, cuts: list[int]) -> None:
    data = text.encode()
    whole = one_shot(Filter(secrets, []), data)
    assert in_chunks(Filter(secrets, []), data, cuts) == whole
    assert in_chunks(Filter(secrets, []), data, cuts, idle=True) == whole


@given(st.lists(LETTERS, min_size=1, max_size=4), st.text("ab\nc", max_size=60), CUTS)
def test_no_secret_survives(secrets: list[str], text: str, cuts: list[int]) -> None:
    # Between the masks: what a mask joins was not printed.
    shown = in_chunks(Filter(secrets, []), text.encode(), cuts).split(b"***")
    for needle in needles(secrets):
        assert not any(needle in part for part in shown)


@given(st.text("ab", max_size=40))
def test_text_without_a_secret_is_untouched(text: str) -> None:
    assert one_shot(Filter(["xyz"], []), text.encode()) == text.encode()


@given(st.lists(PIECES, max_size=30).map("".join), CUTS)
def test_rewriting_does_not_depend_on_chunks(text: str, cuts: list[int]) -> None:
    data, ports = text.encode(), [(8000, 3333), (80, 8080)]
    assert in_chunks(Filter([], ports), data, cuts) == one_shot(Filter([], ports), data)


@given(st.lists(PIECES, max_size=20).map("".join), CUTS)
def test_both_together_do_not_depend_on_chunks(text: str, cuts: list[int]) -> None:
    data, ports, secrets = text.encode(), [(8000, 3333)], ["localhost:80", "p:/", "0h"]
    assert in_chunks(Filter(secrets, ports), data, cuts) == one_shot(Filter(secrets, ports), data)


def test_nothing_to_do_needs_no_filter() -> None:
    assert make_filter([], []) is None
    assert make_filter([""], []) is None


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (["hunter2"], b"password hunter2!", b"password ***!"),
        (["abc", "abcdef"], b"abcdef abc", b"*** ***"),
        (["abcd", "cdef"], b"xabcdefx", b"x***x"),
        (["aa"], b"aaaa", b"***"),
        (["\u00e4\u00f6"], "\u00e4\u00f6".encode(), b"***"),
        (["token\n"], b"token", b"***"),
        (
            ["one line\nabc\n}\nlast line"],
            b"  one line\r\nabc\n}\nlast line",
            b"  ***\r\nabc\n}\n***",
        ),
        (["key"], b"\x1b[31mkey\x1b[0m", b"\x1b[31m***\x1b[0m"),
        (["abcdef"], b"ends in abc", b"ends in abc"),
    ],
)
def test_secrets(secrets: list[str], text: bytes, shown: bytes) -> None:
    assert show(text, secrets) == shown


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "127.0.0.1", "localhost", "[::]", "[::1]"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_addresses(scheme: str, address: str) -> None:
    text = f"on {scheme}://{address}:8000/x?y=1\n".encode()
    assert show(text, p8000=3333) == f"on {scheme}://127.0.0.1:3333/x?y=1\n".encode()


@pytest.mark.parametrize(
    "text",
    [
        b"http://0.0.0.0:80001/",
        b"http://0.0.0.0:800",
        b"http://example.org:8000",
        b"http://localhost/",
        b"ftp://localhost:8000",
        b"localhost:8000",
    ],
)
def test_other_addresses_stay(text: bytes) -> None:
    assert show(text, p8000=3333) == text


def test_colour_around_the_port_stays() -> None:
    text = b"\x1b[36mhttp://localhost:\x1b[1m5173\x1b[22m/\x1b[39m"
    assert show(text, p5173=6000) == b"\x1b[36mhttp://127.0.0.1:\x1b[1m6000\x1b[22m/\x1b[39m"


def test_this_machines_name_is_an_address() -> None:
    import os

    name = os.uname().nodename
    assert show(f"http://{name}:8888/tree".encode(), p8888=1) == b"http://127.0.0.1:1/tree"


def test_idle_shows_an_address_but_no_secret() -> None:
    shown = Filter(["secret"], [(8000, 3333)])
    assert shown.feed(b"at http://0.0.0.0:8000") == b"at "
    assert shown.holding
    assert shown.idle() == b"http://127.0.0.1:3333"
    assert shown.feed(b" sec") == b" "
    assert shown.idle() == b""
    assert shown.feed(b"ret") == b"***"
    assert shown.flush() == b""


def test_a_secret_is_masked_before_addresses_change_it() -> None:
    assert show(b"http://localhost:8000/t0k3n", ["localhost:8000/t0k3n"], p8000=1) == b"http://***"


@given(st.binary(max_size=80), st.binary(min_size=1, max_size=5), CUTS)
def test_any_bytes(data: bytes, secret: bytes, cuts: list[int]) -> None:
    whole = one_shot(Filter([secret], [(1, 2)]), data)
    assert in_chunks(Filter([secret], [(1, 2)]), data, cuts) == whole


def test_little_is_held() -> None:
    shown = Filter(["aaaaaaab"], [(8000, 1)])
    held = sum(len(b"a" * 1000) - len(shown.feed(b"a" * 1000)) for _ in range(50))
    assert held <= 7
