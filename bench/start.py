"""What the command costs each time that it is typed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.harness import Context, Row, floor, side_by_side, timed

FIVE_ERRORS = """\
type: task
comands: [echo hi]
python: "2.7"
ports: [70000]
max_duration: soon
env: ["1A=x"]
"""

# Run by the installed Python: ten thousand runs that have ended, through the store itself.
FILL = """\
from dstack.paths import find_home
from dstack.run.model import Plan, Run
from dstack.store.database import Database
from dstack.store.runs import Runs

database = Database(find_home())
database.connection.execute("PRAGMA synchronous = OFF")
runs = Runs(database)
for i in range(10_000):
    plan = Plan(name=f"old-{i}", project="/p", workdir=".", file=".dstack.yml", backend="local",
                engine="process", commands=("python train.py",) * 3)
    runs.add(Run(id=f"{i:026d}", name=f"old-{i}", plan=plan, status="done", submitted_at=1e9 + i,
                 started_at=1e9 + i, finished_at=1e9 + i + 1, reason="completed", exit_code=0),
             lambda seq: None)
"""


def thousand_files(folder: Path) -> None:
    """A git repository of 1,000 committed files and a task that says hi."""
    (folder / ".dstack.yml").write_text("type: task\ncommands: [echo hi]\n")
    for i in range(1000):
        path = folder / f"package{i % 20}" / f"module{i}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"value = {i}\n" * 20)
    who = ["-c", "user.name=b", "-c", "user.email=b@example.com"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def measure(context: Context) -> Iterable[Row]:
    """Each command against `python -c pass` of the same environment."""
    home = context.folder("start-home")
    folder = context.folder("start")
    env = context.env(home)

    def against_floor(name: str, goal: float, ours: Callable[[], float], note: str = "") -> Row:
        a, b = side_by_side(ours, lambda: floor(context), rounds=21)
        return Row(name, a * 1000, b * 1000, "ms", goal, note=note)

    def command(*args: str, cwd: Path = folder, code: int = 0) -> Callable[[], float]:
        return lambda: timed([context.binary, *args], env=env, cwd=cwd, code=code)

    yield against_floor("--help", 4.5, command("--help"))

    (folder / "wrong.dstack.yml").write_text(FIVE_ERRORS)
    yield against_floor("validate, five errors", 8, command("validate", "wrong.dstack.yml", code=2))

    code = context.folder("start-code")
    thousand_files(code)
    note = "1,000 unchanged files"
    yield against_floor("run 'echo hi', attached", 15, command("run", ".", cwd=code), note)
    yield against_floor("run -d", 15, command("run", ".", "-d", cwd=code), note)
    context.dstack(home, "stop", "-a", "-x")

    full = context.folder("start-full")
    subprocess.run([context.python, "-c", FILL], env=context.env(full), check=True)
    env = context.env(full)
    yield against_floor("ps, 10,000 finished runs", 8, command("ps"))
