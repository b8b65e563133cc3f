"""How things are printed."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

import pytest

from dstack import text


class Terminal(io.StringIO):
    """A stream that says it is a terminal, of which no width is known."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


@contextlib.contextmanager
def stderr_at(terminal: Terminal) -> Iterator[None]:
    # Inside the test, because pytest puts its own stderr back between a fixture and its test.
    with contextlib.redirect_stderr(terminal):
        yield


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (5, "5s"),
        (60, "1m"),
        (200, "3m 20s"),
        (7500, "2h 5m"),
        (7205, "2h"),
        (72 * 3600, "3d"),
        (30 * 3600, "1d 6h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("at", "shown"), [(100, "just now"), (105, "just now"), (95, "5s ago"), (-100, "3m ago")]
)
def test_ago_has_one_unit_and_survives_a_clock_moved_back(at: float, shown: str) -> None:
    assert text.ago(at, 100) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (12, "12 B"),
        (1023, "1023 B"),
        (1024, "1 KB"),
        (1024**2 - 1, "1 MB"),
        (1288490189, "1.2 GB"),
        (24 * 1024**3, "24 GB"),
        (5 * 1024**5, "5 PB"),
    ],
)
def test_sizes_are_powers_of_1024(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1714564800.25, "2024-05-01T12:00:00.250Z"),
        (0.9999, "1970-01-01T00:00:01.000Z"),
    ],
)
def test_timestamps_are_utc_with_milliseconds(seconds: float, shown: str) -> None:
    assert text.timestamp(seconds) == shown


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    assert text.plain("a\x1b[2Jb\nc\u202ed\x9be\udc80") == "a\\x1b[2Jb\\nc\\u202ed\\x9be\\udc80"
    assert text.plain("two\nlines\r", keep="\n") == "two\nlines\\r"
    assert text.plain("für 模型 👩\u200d🔬") == "für 模型 👩\u200d🔬"


def test_width_counts_columns() -> None:
    assert text.width("abc") == 3
    assert text.width("模型") == 4
    assert text.width("e\u0301") == 1


def test_shorten_never_exceeds_the_columns() -> None:
    assert text.shorten("abcdef", 6) == "abcdef"
    assert text.shorten("abcdef", 5) == "abcd…"
    assert text.shorten("模型模型", 6) == "模型…"


ROWS = [["brave-cat", "running", "a long message " * 10], ["x", "done", "short\nforged row"]]


def test_a_table_says_everything_when_no_width_is_given() -> None:
    lines = text.table(["NAME", "STATUS", "MESSAGE"], ROWS).split("\n")
    assert lines == [
        "NAME       STATUS   MESSAGE",
        "brave-cat  running  " + ("a long message " * 10).rstrip(),
        "x          done     short\\nforged row",
    ]


def test_a_table_fits_and_its_last_column_gives_way() -> None:
    lines = text.table(["NAME", "STATUS", "MESSAGE"], ROWS, columns=40).split("\n")
    assert lines[1] == "brave-cat  running  a long message a lo…"
    assert lines[2] == "x          done     short\\nforged row"
    assert max(map(text.width, lines)) == 40


def test_a_table_shrinks_the_widest_next_and_never_the_name() -> None:
    row = ["n" * 30, "s" * 30, "m" * 30]
    shown = text.table(["A", "B", "C"], [row], columns=60).split("\n")[1]
    assert shown == "n" * 30 + "  " + "s" * 17 + "…" + "  " + "m" * 7 + "…"


def test_wide_characters_keep_columns_aligned() -> None:
    lines = text.table(["N", "S"], [["模型", "a"], ["b", "c"]]).split("\n")
    assert lines == ["N     S", "模型  a", "b     c"]


def test_colour_is_for_terminals_that_want_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert text.paint("x", "red", terminal) == "\x1b[31mx\x1b[0m"
    assert text.paint("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert text.paint("x", "red", terminal) == "x"
    monkeypatch.setenv("NO_COLOR", "")
    assert text.has_colour(terminal)
    monkeypatch.setenv("TERM", "dumb")
    assert text.paint("x", "red", terminal) == "x"


def test_errors_and_hints_are_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    text.error("there is no run \x1b[2Jx", "dstack ps -a lists them")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: there is no run \\x1b[2Jx\nhint: dstack ps -a lists them\n"


def test_coloured_labels_keep_their_colour(terminal: Terminal) -> None:
    with stderr_at(terminal):
        text.warn("slow")
    assert terminal.getvalue() == "\x1b[33mwarning:\x1b[0m slow\n"


def test_data_that_the_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    text.show("模…")
    sys.stdout.flush()
    assert raw.getvalue() == b"\\u6a21...\n"


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    text.show("x")
    text.say("x")
    assert text.Progress("x").total is None
    assert not text.is_terminal(None)


def answering(monkeypatch: pytest.MonkeyPatch, answers: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answers))


def test_a_question_takes_a_beginning_and_asks_again(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, "\nwhat\nDET\n")
    with stderr_at(terminal):
        assert text.ask("What now?", ("stop", "detach", "go on")) == "detach"
    assert terminal.getvalue().count("What now? [stop/detach/go on] ") == 3


def test_a_question_has_a_default_and_an_end(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, "\n")
    with stderr_at(terminal):
        assert text.ask("Sure?", ("yes", "no"), default="no") == "no"
        assert text.ask("Sure?", ("yes", "no"), default="no") is None
    assert "[yes/NO]" in terminal.getvalue()


def test_nothing_is_asked_without_a_terminal_or_with_yes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("no\n"))
    assert text.ask("Sure?", ("yes", "no")) is None
    assert text.confirm("Sure?", yes=False)
    answering(monkeypatch, "no\n")
    assert text.confirm("Sure?", yes=True)
    assert capsys.readouterr().err == ""
    assert not text.confirm("Sure?", yes=False)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_drawn_on_a_terminal_and_wiped(terminal: Terminal) -> None:
    clock = Clock()
    with (
        stderr_at(terminal),
        text.Progress("uploading", 104 * 1024**2, clock=clock) as progress,
    ):
        progress.update(1)
        assert terminal.getvalue() == ""  # too soon
        clock.now = 2.0
        progress.advance(52 * 1024**2 - 1)
        progress.advance(1)  # too soon after the last drawing
    assert terminal.getvalue() == (
        "\ruploading  52 MB of 104 MB  50%  26 MB/s  2s left\x1b[K\r\x1b[K"
    )


def test_progress_without_a_total_says_what_is_known(terminal: Terminal) -> None:
    clock = Clock()
    progress = text.Progress("reading", stream=terminal, clock=clock)
    clock.now = 1.0
    progress.update(1024)
    assert terminal.getvalue() == "\rreading  1 KB  1 KB/s\x1b[K"


def test_progress_is_silent_elsewhere() -> None:
    stream, clock = io.StringIO(), Clock()
    with text.Progress("uploading", 100, stream=stream, clock=clock) as progress:
        clock.now = 5.0
        progress.update(50)
    assert stream.getvalue() == ""


def test_a_table_asks_stdout_how_wide_it_may_be(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ["x", "y" * 200]
    assert text.table(["A", "B"], [row]).endswith("y" * 200)
    monkeypatch.setattr(sys, "stdout", terminal)  # its width is not known: 80
    assert max(map(len, text.table(["A", "B"], [row]).split("\n"))) == 80


def test_shown_data_ends_with_one_newline(capsys: pytest.CaptureFixture[str]) -> None:
    text.show("a")
    text.show("b\n")
    assert capsys.readouterr().out == "a\nb\n"
