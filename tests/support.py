"""Driving the installed command, and proving that it left nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# What the machine that tests run on may have set, and what would change what is tested.
FOREIGN = ("DSTACK_", "PYTEST_", "PYTHONPATH", "PYTHONUNBUFFERED", "VIRTUAL_ENV", "NO_COLOR")


def wait_for(
    condition: Callable[[], T | None], what: str, *, timeout: float = 30.0, pause: float = 0.02
) -> T:
    """The first true value of `condition()`; fails after `timeout` seconds, saying `what`.

    `pause`: seconds between two looks, more of them where a look costs much.
    """
    deadline = time.monotonic() + timeout
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        time.sleep(pause)


class Dstack:
    """The installed `dstack` with a state folder of its own: call it as the command is typed."""

    def __init__(self, binary: str, home: Path, cwd: Path) -> None:
        self.binary = binary
        self.home = home
        self.cwd = cwd

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The command's environment: the machine's, without what is dstack's or pytest's."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        return {**kept, "DSTACK_HOME": str(self.home), **(extra or {})}

    def __call__(
        self,
        *args: str | Path,
        cwd: Path | None = None,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; output as text."""
        done = self.raw(
            *args, cwd=cwd, input=input.encode() if input else None, env=env, timeout=timeout
        )
        out, err = (part.decode(errors="surrogateescape") for part in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def raw(
        self,
        *args: str | Path,
        cwd: Path | None = None,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; output as bytes."""
        return subprocess.run(
            [self.binary, *map(str, args)],
            cwd=cwd or self.cwd,
            input=input or b"",
            env=self.env(env),
            timeout=timeout,
            capture_output=True,
            check=False,
        )

    def start(
        self,
        *args: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Start it and go on; stdout and stderr are pipes unless `options` say otherwise."""
        given: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **options,
        }
        command = [self.binary, *map(str, args)]
        return subprocess.Popen(command, cwd=cwd or self.cwd, env=self.env(env), **given)

    def ok(self, *args: str | Path, **options: Any) -> str:
        """Run it, insist on exit code 0, return stdout."""
        done = self(*args, **options)
        assert done.returncode == 0, f"{done.args} exited with {done.returncode}:\n{done.stderr}"
        return done.stdout

    def ps(self, *args: str) -> list[dict[str, Any]]:
        """What `ps --json` says."""
        found: list[dict[str, Any]] = json.loads(self.ok("ps", "--json", *args))
        return found

    def run_of(self, name: str) -> dict[str, Any]:
        """The newest run called `name`, as `ps --json` shows it."""
        (found,) = self.ps(name)
        return found

    def wait_status(self, name: str, *statuses: str, timeout: float = 60.0) -> dict[str, Any]:
        """The run, once its status is one of `statuses`."""

        def reached() -> dict[str, Any] | None:
            run = self.run_of(name)
            return run if run["status"] in statuses else None

        return wait_for(reached, f"{name} to be {' or '.join(statuses)}", timeout=timeout)

    def leftovers(self) -> list[str]:
        """Processes that belong to this state folder: `PID COMMAND` each."""
        runs = self.home / "runs"
        ids = [path.name for path in runs.iterdir()] if runs.is_dir() else []
        return processes_of(self.home, ids)


def processes_of(home: Path, run_ids: Sequence[str] = ()) -> list[str]:
    """Living processes whose environment names `home` or a run, or who stand in its folder."""
    marks = {f"DSTACK_HOME={home}".encode(), *(f"DSTACK_RUN_ID={i}".encode() for i in run_ids)}
    # Keepers have no run's environment, only the name of their job: `:ID-ATTEMPT:`.
    keepers = tuple(f"DSTACK_JOB=:{i}-".encode() for i in run_ids)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # A zombie has no environment left: it has ended, and only waits for its parent.
            environ = set((entry / "environ").read_bytes().split(b"\0"))
            inside = os.readlink(entry / "cwd").startswith(f"{home}/")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        kept = keepers and any(value.startswith(keepers) for value in environ)
        if inside or kept or marks & environ:
            found.append(f"{entry.name} {command}")
    return found


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write `files` (relative path to content) below `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def git_init(folder: Path) -> None:
    """Make `folder` a repository with everything in it committed."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)
