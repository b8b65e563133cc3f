"""Logs as files: following, tails, times, and attempts one after the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.output.filter import make_filter
from dstack.output.follow import LogReader
from dstack.output.runlog import LOG, RunLog, RunReader
from dstack.output.tail import tail_offset
from dstack.output.times import (
    FAR,
    INDEX,
    Sampler,
    Stamper,
    line_start,
    offset_since,
    read_index,
    read_times,
    rfc3339,
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def written(fd: int) -> bytes:
    return os.pread(fd, 1 << 30, 0)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_log_that_is_not_there_yet_is_empty(log: Path, out: int) -> None:
    reader = LogReader(log)
    assert reader.copy_to(out) == 0
    log.write_bytes(b"now\n")
    assert reader.copy_to(out) == 4
    assert reader.copy_to(out) == 0
    assert written(out) == b"now\n"
    reader.close()


@pytest.mark.parametrize("filtered", [False, True])
def test_every_byte_arrives_through_a_pipe(log: Path, filtered: bool) -> None:
    data = os.urandom(3 << 20)
    log.write_bytes(data)
    shown = make_filter(["no such secret in random bytes"]) if filtered else None
    read, write = os.pipe()
    os.set_blocking(write, False)  # a terminal shared with a program that set it so
    got = bytearray()

    def drain() -> None:
        while piece := os.read(read, 1 << 16):
            got.extend(piece)

    reader, thread = LogReader(log), threading.Thread(target=drain)
    thread.start()
    try:
        assert reader.copy_to(write, shown) == len(data)
        if shown is not None:
            os.write(write, shown.flush())
    finally:
        os.close(write)
        thread.join()
        os.close(read)
        reader.close()
    assert bytes(got) == data


def test_a_file_opened_for_appending(log: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"before\n")
    log.write_bytes(b"x" * (1 << 20))
    reader = LogReader(log)
    fd = os.open(target, os.O_WRONLY | os.O_APPEND)
    assert reader.copy_to(fd) == 1 << 20
    os.close(fd)
    reader.close()
    assert target.read_bytes() == b"before\n" + log.read_bytes()


def test_a_terminal(log: Path) -> None:
    log.write_bytes(b"hello\n")
    leader, terminal = os.openpty()
    reader = LogReader(log)
    assert reader.copy_to(terminal) == 6
    assert os.read(leader, 100) == b"hello\r\n"
    for fd in (leader, terminal):
        os.close(fd)
    reader.close()


@pytest.mark.parametrize("filtered", [False, True])
def test_a_reader_that_has_gone(log: Path, filtered: bool) -> None:
    log.write_bytes(b"x" * 100_000)
    read, write = os.pipe()
    os.close(read)
    reader = LogReader(log)
    with pytest.raises(BrokenPipeError):
        reader.copy_to(write, make_filter(["secret"]) if filtered else None)
    os.close(write)
    reader.close()


def test_a_log_that_was_emptied(log: Path, out: int) -> None:
    log.write_bytes(b"one\ntwo\n")
    reader = LogReader(log)
    reader.copy_to(out)
    os.truncate(log, 0)
    assert reader.copy_to(out) == 0
    assert reader.truncated == 1
    append(log, b"three\n")
    reader.copy_to(out)
    assert written(out) == b"one\ntwo\nthree\n"
    reader.close()


@pytest.mark.parametrize(
    ("text", "lines", "tail"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\n", 5, b"a\nb\n"),
        (b"a\nb\n", 2, b"a\nb\n"),
        (b"\n\n\n", 1, b"\n"),
        (b"a", 1, b"a"),
        (b"a\nb\n", 0, b""),
        (b"", 3, b""),
        (b"x" * 70_000 + b"\n" + b"y" * 140_000 + b"\nz\n", 2, b"y" * 140_000 + b"\nz\n"),
    ],
)
def test_tail(log: Path, text: bytes, lines: int, tail: bytes) -> None:
    log.write_bytes(text)
    offset, found = tail_offset(log, lines)
    assert text[offset:] == tail
    assert found == min(lines, len(text.splitlines()))


def test_tail_of_no_file(log: Path) -> None:
    assert tail_offset(log, 3) == (0, 0)


def grow(log: Path, data: bytes, when: float) -> None:
    append(log, data)
    os.utime(log, (when, when))


def test_times(log: Path) -> None:
    index = log.with_name(INDEX)
    sampler = Sampler(log, index)
    assert not sampler.sample(100)  # no log yet
    grow(log, b"one\ntw", 1000)
    assert sampler.sample(1000)
    assert not sampler.sample(1000.5)  # too soon
    assert not sampler.sample(1002)  # has not grown
    grow(log, b"o\nthree\n", 1003)
    assert sampler.sample(1003)
    grow(log, b"four\n", 2000)
    assert read_index(index) == [(1000_000, 6), (1003_000, 14)]
    text = log.read_bytes()
    assert text[offset_since(log, 900) :] == text
    assert text[offset_since(log, 1000) :] == text
    assert text[offset_since(log, 1001) :] == b"two\nthree\nfour\n"
    assert text[offset_since(log, 1500) :] == b"four\n"
    assert text[offset_since(log, 2001) :] == b""


def test_what_nobody_watched_has_the_time_of_its_last_byte(log: Path) -> None:
    index = log.with_name(INDEX)
    grow(log, b"long ago\n", 1000)
    assert Sampler(log, index).sample(5000)
    assert read_index(index) == [(1000_000, 9)]


def test_a_clock_that_moved_back(log: Path) -> None:
    index = log.with_name(INDEX)
    sampler = Sampler(log, index)
    grow(log, b"one\n", 5000)
    assert sampler.sample(5000)
    grow(log, b"two\n", 3000)
    assert sampler.sample(3000)
    assert read_index(index) == [(5000_000, 4), (5000_000, 8)]
    # Another watcher goes on where this one stopped.
    grow(log, b"three\n", 4000)
    assert Sampler(log, index).sample(4000)
    assert read_index(index)[-1] == (5000_000, 14)


def test_an_index_of_garbage(log: Path) -> None:
    index = log.with_name(INDEX)
    index.write_bytes(b"\xff\n-1 5\n1 2 3\n10 4\n\n20 9\n15 7\n30 8\n99 ")
    assert read_index(index) == [(10, 4), (15, 7), (30, 8)]


def test_two_who_write_at_once(log: Path) -> None:
    index = log.with_name(INDEX)
    # The second line is of a look before that of the first; the last one begins an emptied log.
    index.write_bytes(b"1000 90\n900 80\n950 90\n2000 120\n")
    assert read_index(index) == [(900, 80), (950, 90), (2000, 120)]
    index.write_bytes(b"1000 90\n900 80\n2000 30\n")
    assert read_index(index) == [(2000, 30)]


def test_what_is_known_there_and_here(log: Path) -> None:
    log.with_name(INDEX).write_bytes(b"10 4\n5000 40\n")
    assert read_times(log) == [(10, 4), (5000, 40)]
    log.with_name(FAR).write_bytes(b"20 10\n30 20\n6000 50\n")
    assert read_times(log) == [(10, 4), (20, 10), (30, 20), (5000, 40), (6000, 50)]


def test_an_emptied_log_has_times_again(log: Path) -> None:
    index = log.with_name(INDEX)
    sampler = Sampler(log, index)
    grow(log, b"0123456789\n", 1000)
    sampler.sample(1000)
    os.truncate(log, 0)
    grow(log, b"new\n", 2000)
    sampler.sample(2000)
    assert read_index(index) == [(2000_000, 4)]


def test_a_line_without_end_is_not_searched_for_ever(log: Path) -> None:
    log.write_bytes(b"\n" + b"\r50%" * 700_000)
    assert line_start(log, 2_500_000) == 2_500_000
    assert line_start(log, 500_000) == 1


def test_stamps(log: Path, out: int) -> None:
    log.write_bytes(b"one\ntwo\nthree")
    stamper = Stamper([(0, 4), (1_500, 8)], latest=86_400_000)
    reader = LogReader(log)
    reader.copy_to(out, None, stamper)
    append(log, b" goes on\nfour\n")
    reader.copy_to(out, make_filter(["four"]), stamper)
    reader.close()
    assert written(out) == (
        b"1970-01-01T00:00:00.000Z one\n"
        b"1970-01-01T00:00:01.500Z two\n"
        b"1970-01-02T00:00:00.000Z three goes on\n"
        b"1970-01-02T00:00:00.000Z ***\n"
    )


def test_rfc3339() -> None:
    assert rfc3339(1_714_564_800_007) == b"2024-05-01T12:00:00.007Z"


def attempt(folder: Path, number: int, text: bytes, when: float = 1000) -> Path:
    path = folder / str(number) / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    grow(path, text, when)
    return path


def test_attempts_one_after_the_other(tmp_path: Path, out: int) -> None:
    folder = tmp_path / "run"
    reader = RunReader(RunLog(folder))
    assert reader.copy_to(out) == 0  # no folder yet
    attempt(folder, 1, b"first\n")
    (folder / "code").mkdir()
    assert reader.copy_to(out) == 6
    attempt(folder, 1, b"end of first\n")
    for number in (2, 10):
        attempt(folder, number, b"attempt %d\n" % number)
    reader.copy_to(out)
    attempt(folder, 10, b"more\n")
    reader.copy_to(out)
    assert written(out) == b"first\nend of first\nattempt 2\nattempt 10\nmore\n"
    assert (reader.position.attempt, reader.position.offset) == (10, 16)
    reader.close()


@pytest.mark.parametrize(
    ("lines", "text"),
    [(0, b""), (1, b"d\n"), (3, b"b\nc\nd\n"), (9, b"a\nb\nc\nd\n")],
)
def test_tail_over_attempts(tmp_path: Path, out: int, lines: int, text: bytes) -> None:
    attempt(tmp_path, 1, b"a\nb\n")
    attempt(tmp_path, 2, b"")
    attempt(tmp_path, 3, b"c\nd\n")
    run = RunLog(tmp_path)
    reader = RunReader(run, run.tail(lines))
    reader.copy_to(out)
    reader.close()
    assert written(out) == text


def test_since_over_attempts(tmp_path: Path, out: int) -> None:
    attempt(tmp_path, 1, b"old\n", 1000)
    attempt(tmp_path, 2, b"new\n", 2000)
    run = RunLog(tmp_path)
    reader = RunReader(run, run.since(1500))
    reader.copy_to(out)
    assert written(out) == b"new\n"
    end = run.since(3000)
    assert (end.attempt, end.offset) == (2, 4)
    reader.close()


def test_stamped_attempts(tmp_path: Path, out: int) -> None:
    attempt(tmp_path, 1, b"a\n", 1)
    attempt(tmp_path, 2, b"b\n", 2)
    reader = RunReader(RunLog(tmp_path), stamped=True)
    reader.copy_to(out)
    reader.close()
    assert written(out) == b"1970-01-01T00:00:01.000Z a\n1970-01-01T00:00:02.000Z b\n"


def test_watching_writes_the_index(tmp_path: Path, out: int) -> None:
    log = attempt(tmp_path, 1, b"a\n", 1000)
    reader = RunReader(RunLog(tmp_path))
    reader.copy_to(out)
    reader.sample(1000)
    reader.close()
    assert read_index(log.with_name(INDEX)) == [(1_000_000, 2)]
