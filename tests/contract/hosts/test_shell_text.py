"""What is sent to a shell on another machine is understood by a shell as it was meant."""

from __future__ import annotations

import subprocess

from hypothesis import given
from hypothesis import strategies as st

from dstack.hosts.ssh_requests import printed, words
from tests.characters import NO_NUL


def shell(script: bytes) -> bytes:
    return subprocess.run(["sh"], input=script, capture_output=True, check=True).stdout


@given(st.lists(st.text(NO_NUL), max_size=4))
def test_words_reach_a_shell_as_they_are(texts: list[str]) -> None:
    said = shell(b"printf '%s\\n--\\n' " + words(texts) + b"\n") if texts else b""
    assert said == b"".join(text.encode() + b"\n--\n" for text in texts)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_printed(data: bytes) -> None:
    assert shell(printed(data) + b"\n") == data
