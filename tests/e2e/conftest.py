"""What the sessions of a user have in common: write a task file, run it, look."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Dstack, wait_for, write_files

Task = Callable[..., Path]
RunTask = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Write a folder with a task: `task("commands: [echo hi]", files={...})`; the folder."""

    def write(text: str, *, name: str = "project", files: dict[str, str] | None = None) -> Path:
        content = "type: task\n" + textwrap.dedent(text).strip() + "\n"
        return write_files(tmp_path / name, {".dstack.yml": content, **(files or {})})

    return write


@pytest.fixture
def run_task(dstack: Dstack, task: Task) -> RunTask:
    """Write the task and run it, attached: `run_task("commands: [echo hi]", "-n", "name")`."""

    def run(
        text: str, *args: str, env: dict[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        return dstack("run", ".", *args, cwd=task(text, **options), env=env)

    return run


@pytest.fixture
def printed(dstack: Dstack) -> Callable[[str, str], str]:
    """Wait until a run has printed something: `printed("name", "text")`; its output so far."""

    def wait(name: str, text: str) -> str:
        def there() -> str | None:
            out = dstack.ok("logs", name)
            return out if text in out else None

        return wait_for(there, f"{name} to print {text!r}", timeout=60)

    return wait


_PORTS = itertools.count()


def free_port() -> int:
    """A port that nobody has: below those that the system hands out, each worker its own."""
    worker = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", ""))) or 0)
    first = 20000 + worker % 8 * 1500
    for step in _PORTS:
        port = first + (os.getpid() * 7 + step) % 1400
        if not is_open(port):
            return port
    raise AssertionError


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, port)) == 0
