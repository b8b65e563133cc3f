"""Fixtures for the tests of the installed command, and the rules for every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support import Dstack, git_init, wait_for, write_files

# A busy machine is no bug, and CI tries the same examples every time.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")

Project = Callable[..., Path]

# `nohup` and a shell's `&` leave signals ignored, and what we start would obey that, as it should.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Who does which test, with `-n`."""
    from tests.distribution import ByGroup

    return ByGroup(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI nothing is skipped: what a test needs and does not find is a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Leave the counts for the closing line of `./test`."""
    path = os.environ.get("DSTACK_TEST_COUNTS")
    # xdist's workers sum up, too; the controller counts what they all did.
    if path and not hasattr(terminalreporter.config, "workerinput"):
        stats = {key: len(reports) for key, reports in terminalreporter.stats.items()}
        failed = stats.get("failed", 0) + stats.get("error", 0)
        with Path(path).open("a") as counts:
            counts.write(f"{stats.get('passed', 0)} {failed} {stats.get('skipped', 0)}\n")


@pytest.fixture(scope="session")
def binary() -> str:
    """The installed `dstack`; the environment it stands in is that of the wheel."""
    found = os.environ.get("DSTACK_BIN")
    if not found:
        pytest.skip("DSTACK_BIN does not name an installed dstack; ./test sets it")
    return found


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the templates of environments lie, shared by all tests: each costs a second."""
    base = tmp_path_factory.getbasetemp()
    # xdist gives each worker a folder of its own below one.
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "templates"
    shared.mkdir(exist_ok=True)
    return shared


def make_home(folder: Path, templates: Path) -> Path:
    """A state folder of its own, but for the templates of environments."""
    folder.mkdir(mode=0o700)
    (folder / "envs").symlink_to(templates)
    return folder


@pytest.fixture
def home(tmp_path: Path, templates: Path) -> Path:
    """The state folder of this test."""
    return make_home(tmp_path / "home", templates)


@contextmanager
def tended(command: Dstack) -> Iterator[Dstack]:
    """The command. Afterwards everything is stopped, and no process may be left."""
    yield command
    if not command.home.exists():
        return
    command("stop", "-a", "-x", "-y")
    try:
        wait_for(lambda: not command.leftovers(), "the processes of this test to end")
    finally:
        for left in command.leftovers():
            os.kill(int(left.split()[0]), 9)


@pytest.fixture
def dstack(binary: str, home: Path, tmp_path: Path) -> Iterator[Dstack]:
    """The command; see `tended`."""
    with tended(Dstack(binary, home, tmp_path)) as command:
        yield command


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Make a folder: `project({"a.txt": "..."}, git=True)`; a str alone is its `.dstack.yml`."""

    def make(
        files: Mapping[str, str | bytes] | str, *, git: bool = False, name: str = "project"
    ) -> Path:
        if isinstance(files, str):
            files = {".dstack.yml": files}
        folder = write_files(tmp_path / name, files)
        if git:
            git_init(folder)
        return folder

    return make
