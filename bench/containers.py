"""A run in a container against the engine's own `run`, on the engines that the tests start."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.harness import Context, Row, side_by_side, timed
from tests.engines import services
from tests.engines.engine import Engine

_AT_ONCE = 20
_GIGABYTE = 1 << 30
# What a build leaves: some of it in the run's folder, some of it in the image.
_MAKE = (
    "mkdir made /made; for i in $(seq 100); do head -c 9999 data >made/$i; done; cp made/1 /made"
)
_PRINT = "head -c 1073741824 /dev/zero"


def measure(context: Context) -> Iterable[Row]:
    """Docker, then Podman; what cannot be started is told and not passed over."""
    started = services.here()
    started.start(os.getpid())
    try:
        os.environ.update(started.env())
        for engine in started.engines.values():
            yield from _engine(context, engine)
    finally:
        started.stop(os.getpid())


def _engine(context: Context, engine: Engine) -> Iterable[Row]:
    name = engine.name
    home, folder = context.folder(f"{name}-home"), context.folder(f"{name}-task")
    (home / "config.yml").write_text(f"backends:\n  - name: local\n    engine: {name}\n")
    image = engine.image("busybox")
    task = f"type: task\nimage: {image}\ncommands:\n  - "
    (folder / ".dstack.yml").write_text(f"{task}echo hi\n")
    (folder / "much.dstack.yml").write_text(f"{task}{_PRINT}\n")
    env = context.env(home)
    plain = [name, "run", "--rm", "-v", f"{folder}:/work", image, "sh", "-c"]

    def ours() -> float:
        return timed([context.binary, "run", "."], env=env, cwd=folder)

    def theirs() -> float:
        return timed([*plain, "echo hi"])

    run, bare = side_by_side(ours, theirs, rounds=9)
    note = f"+{(run - bare) * 1000:.0f} ms"
    goal = 1.25 + 0.15 / bare
    yield Row(f"{name}: echo hi, against run", run * 1000, bare * 1000, "ms", goal, note=note)
    yield _much(context, engine.name, plain, folder, env)
    yield _at_once(context, engine.name, plain, folder, env)
    yield _from_build(context, engine.name, image, home)


def _much(context: Context, name: str, plain: list[str], folder: Path, env: dict[str, str]) -> Row:
    out = folder.with_name(f"{name}-out")
    command = [context.binary, "run", ".", "-f", "much.dstack.yml"]
    fast, slow = [], []
    for _ in range(2):
        fast.append(_GIGABYTE / timed(command, env=env, cwd=folder, stdout=out) / 1e6)
        assert out.stat().st_size == _GIGABYTE
        slow.append(_GIGABYTE / timed([*plain, _PRINT], stdout=out) / 1e6)
    out.unlink()
    speed, other = statistics.median(fast), statistics.median(slow)
    return Row(f"{name}: 1 GB of output", speed, other, "MB/s", 0.9, at_least=True)


def _at_once(
    context: Context, name: str, plain: list[str], folder: Path, env: dict[str, str]
) -> Row:
    def all_at_once(argv: list[str], **options: object) -> float:
        begin = time.perf_counter()

        def one(_: int) -> None:
            subprocess.run(argv, check=True, capture_output=True, **options)  # type: ignore[call-overload]

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(one, range(_AT_ONCE)))
        return time.perf_counter() - begin

    ours, theirs = side_by_side(
        lambda: all_at_once([context.binary, "run", "."], env=env, cwd=folder),
        lambda: all_at_once([*plain, "echo hi"]),
        rounds=3,
    )
    return Row(f"{name}: {_AT_ONCE} at once", ours * 1000, theirs * 1000, "ms", 1.3)


def _from_build(context: Context, name: str, image: str, home: Path) -> Row:
    """Each is started in a folder of its own, so that neither takes what the other left ready."""
    task = f"type: task\nimage: {image}\ncommands: [true]\n"
    built, bare = (context.folder(f"{name}-{which}") for which in ("built", "bare"))
    (built / ".dstack.yml").write_text(f"{task}build: ['{_MAKE}']\n")
    (bare / ".dstack.yml").write_text(task)
    for folder in (built, bare):
        (folder / "data").write_bytes(b"x" * 9999)
    context.dstack(home, "build", ".", cwd=built)
    run = [context.binary, "run", "."]
    env = context.env(home)

    def more() -> float:
        return timed(run, env=env, cwd=built) - timed(run, env=env, cwd=bare)

    more()
    spent = statistics.median(more() for _ in range(15))
    return Row(f"{name}: a run from a build, more than without", spent * 1000, None, "ms", 30)
