"""The values that files and the command line hold: right forms, wrong forms, sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.config import quantities as q
from dstack.config import values as v
from dstack.config.shapes import EnvVar, Gpu, Port, Range, Text, Variable
from tests.characters import ANY

GB = 1024**3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("off", 0), ("90", 90), ("90s", 90), ("30m", 1800), ("3h", 10800), ("2d", 172800),
        ("1w", 604800), ("1h30m", 5400), (" 3h ", 10800),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: int) -> None:
    assert q.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0m", "-1", "3x", "h", "1.5h", "3 h", "1h30", "on", "1e3", "٣h", "9" * 5000]
)
def test_bad_durations(text: str) -> None:
    with pytest.raises(q.BadValue, match=r"is not (a duration|between)"):
        q.parse_duration(text)


def test_only_where_there_is_no_limit_a_duration_may_be_off() -> None:
    with pytest.raises(q.BadValue, match="not a duration"):
        q.parse_seconds("off")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24 * GB), ("24gb", 24 * GB), ("24 GB", 24 * GB), ("24G", 24 * GB),
        ("24GiB", 24 * GB), ("1.5GB", GB * 3 // 2), ("512MB", GB // 2), ("512m", GB // 2),
        ("1TB", 1024 * GB), ("100KB", 102400), ("100B", 100), ("16", 16 * GB), (".5GB", GB // 2),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert q.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "0GB", "-1GB", "24XB", "24GBB", "1e9", "nan", "inf", "1.GB", "2PB2", "B",
             "9" * 400 + "GB", "99999999999PB", "24GB..", "2BI"]
)  # fmt: skip
def test_bad_sizes(text: str) -> None:
    with pytest.raises(q.BadValue, match=r"is not (a size|between)"):
        q.parse_size(text)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("24GB", 24, 24), ("24GB..", 24, None), ("..80GB", None, 80), ("24GB..80GB", 24, 80),
        ("24..80GB", 24, 80), ("24GB .. 80GB", 24, 80), ("1024MB..2", 1, 2),
    ],
)  # fmt: skip
def test_ranges_of_sizes(text: str, least: int | None, most: int | None) -> None:
    ends = [end if end is None else end * GB for end in (least, most)]
    assert q.parse_range_of_sizes(text) == Range(*ends)


@pytest.mark.parametrize("text", ["..", "80GB..24GB", "a..b", "1GB..2GB..3GB", "24GB..x"])
def test_bad_ranges_of_sizes(text: str) -> None:
    with pytest.raises(q.BadValue):
        q.parse_range_of_sizes(text)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("4", Range(4, 4)), ("0.5", Range(0.5, 0.5)), ("2..", Range(2, None)),
        ("..8", Range(None, 8)), ("2..8", Range(2, 8)),
    ],
)  # fmt: skip
def test_cpus(text: str, cpus: Range) -> None:
    assert q.parse_cpu(text) == cpus


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "8..2", "..", "1e3", "nan"])
def test_bad_cpus(text: str) -> None:
    with pytest.raises(q.BadValue):
        q.parse_cpu(text)


@pytest.mark.parametrize(
    ("text", "gpu"),
    [
        ("1", Gpu()), ("0", Gpu(Range(0, 0))), ("2", Gpu(Range(2, 2))),
        ("16..", Gpu(Range(16, None))), ("A100", Gpu(name="A100")),
        ("24GB", Gpu(memory=Range(24 * GB, 24 * GB))),
        ("24GB..80GB", Gpu(memory=Range(24 * GB, 80 * GB))),
        ("A100:2", Gpu(Range(2, 2), "A100")),
        ("A100:40GB:2", Gpu(Range(2, 2), "A100", Range(40 * GB, 40 * GB))),
        ("A100:2:40GB", Gpu(Range(2, 2), "A100", Range(40 * GB, 40 * GB))),
        ("24GB..:1..4", Gpu(Range(1, 4), None, Range(24 * GB, None))),
        ("RTX 4090", Gpu(name="RTX 4090")),
    ],
)  # fmt: skip
def test_gpus(text: str, gpu: Gpu) -> None:
    assert q.parse_gpu(text) == gpu


@pytest.mark.parametrize(
    "text", ["", ":", "A100:", "A100:H100", "1:2", "24GB:40GB", "-1", "4..2", "A100,H100", "é"]
)
def test_bad_gpus(text: str) -> None:
    with pytest.raises(q.BadValue):
        q.parse_gpu(text)


def test_prices() -> None:
    assert [q.parse_price(text) for text in ("1.5", "$2", "0.01")] == [1.5, 2.0, 0.01]
    for text in ("0", "-1", "free", "", "inf"):
        with pytest.raises(q.BadValue, match="is not a price"):
            q.parse_price(text)


@pytest.mark.parametrize(
    ("text", "port"),
    [("8000", Port(8000, 8000)), ("3333:8000", Port(8000, 3333)), ("*:8000", Port(8000, None)),
     ("22:22", Port(22, 22)), ("65535", Port(65535, 65535))],
)  # fmt: skip
def test_ports(text: str, port: Port) -> None:
    assert v.parse_port(text) == port


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "1:0", "a", "8000:*", "1:2:3", "127.0.0.1:80:80", "80/tcp", "-80",
             "1342.0", "*", "*:", ":80", "９"]
)  # fmt: skip
def test_bad_ports(text: str) -> None:
    with pytest.raises(q.BadValue, match=r"is not (a port|between)"):
        v.parse_port(text)


def test_names() -> None:
    assert [v.parse_name(name) for name in ("a", "a-1", "a" * 41)] == ["a", "a-1", "a" * 41]
    for name in ("", "A", "1a", "-a", "a_b", "a" * 42, "a b", "é", "a\n", "a.b"):
        with pytest.raises(q.BadValue, match="is not a name"):
            v.parse_name(name)


def test_pythons() -> None:
    right = ["3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
    assert [v.parse_python(text) for text in right] == right
    for text in ("3.6", "3.15", "2.7", "3", "3.1", "", "latest", "3.11 or so"):
        with pytest.raises(q.BadValue, match=r"not one of 3\.7 to 3\.14"):
            v.parse_python(text)
    with pytest.raises(q.BadValue) as caught:
        v.parse_python("python3.11.4")
    assert caught.value.hint == 'write "3.11"'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("a b'\";|", (Text("a b'\";|"),)),
        ("$A", (Variable("A"),)),
        ("${A}", (Variable("A"),)),
        ("/bin/my:$PATH", (Text("/bin/my:"), Variable("PATH"))),
        ("$A$B", (Variable("A"), Variable("B"))),
        ("$A_1-x", (Variable("A_1"), Text("-x"))),
        ("${A}b", (Variable("A"), Text("b"))),
        ("$$A", (Text("$A"),)),
        ("$$$A", (Text("$"), Variable("A"))),
        ("$1", (Text("$1"),)),
        ("${A:-b}", (Text("${A:-b}"),)),
        ("${A", (Text("${A"),)),
        ("${}", (Text("${}"),)),
        ("$", (Text("$"),)),
        ("a$", (Text("a$"),)),
        ("$(x) `y`", (Text("$(x) `y`"),)),
        ("$é", (Text("$é"),)),
        ("a=b", (Text("a=b"),)),
        ("x\ny", (Text("x\ny"),)),
    ],
)
def test_what_is_expanded_in_a_variables_value(text: str, parts: tuple[Any, ...]) -> None:
    # Adjacent literal pieces are one.
    assert v.parse_env_item(f"X={text}") == EnvVar("X", parts)


def test_a_variable_without_a_value_is_the_shells() -> None:
    assert v.parse_env_item("HOME") == EnvVar("HOME", None)


@pytest.mark.parametrize("text", ["", "=x", "1A=x", "A-B=x", "A B", "A =x", "é=1", " A=1"])
def test_names_of_variables_are_identifiers(text: str) -> None:
    with pytest.raises(q.BadValue, match="is not the name of a variable"):
        v.parse_env_item(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/data", "/data"), ("/data/", "/data"), ("//a//b", "/a/b"), ("/a/../b", "/b"),
        ("data", "data"), ("./data/", "data"), ("a/../b", "b"), ("~", "~"), ("~/x/", "~/x"),
        ("~/.cache/pip", "~/.cache/pip"), ("a b", "a b"), ("..data", "..data"),
    ],
)  # fmt: skip
def test_folders_that_are_kept(text: str, path: str) -> None:
    assert v.parse_cache(text) == path


@pytest.mark.parametrize(
    "text", ["", " ", "/", "//", "/.", "/a/..", "/..", "..", "../x", "a/../..", "~/..", "~/../x",
             "~other/x", ".", "./", "a/..", "$HOME/x"]
)  # fmt: skip
def test_folders_that_cannot_be_kept(text: str) -> None:
    with pytest.raises(q.BadValue):
        v.parse_cache(text)


def test_words_are_split_as_a_shell_would() -> None:
    assert v.parse_words("/bin/bash -i -c") == ("/bin/bash", "-i", "-c")
    assert v.parse_words("sh 'a b'") == ("sh", "a b")
    for text in ("", "  ", "'x", "x\\"):
        with pytest.raises(q.BadValue):
            v.parse_words(text)


PARSERS: list[Callable[[str], object]] = [
    q.parse_duration, q.parse_size, q.parse_range_of_sizes, q.parse_cpu, q.parse_gpu,
    q.parse_gpu_count, q.parse_price, v.parse_port, v.parse_name, v.parse_python, v.parse_env_item,
    v.parse_cache, v.parse_words, v.parse_absolute, v.parse_bool, v.parse_label,
]  # fmt: skip


@given(st.sampled_from(PARSERS), st.text(ANY) | st.text("0123456789.:-$~/GBhmoA*", max_size=12))
def test_whatever_is_written_is_a_value_or_a_sentence(
    parser: Callable[[str], object], text: str
) -> None:
    try:
        parser(text)
    except q.BadValue as error:
        sentence = str(error)
        assert sentence
        assert "\n" not in sentence
        assert len(sentence) < 200


@given(st.text(ANY))
def test_a_doubled_dollar_keeps_any_value_literal(text: str) -> None:
    variable = v.parse_env_item("X=" + text.replace("$", "$$"))
    assert variable.value == ((Text(text),) if text else ())
