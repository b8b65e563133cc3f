"""What a build saves, what starting from one costs, and what finding out that it fits costs."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterable
from pathlib import Path

from bench.harness import Context, Row, side_by_side, timed

PACKAGES = ("numpy", "pandas", "matplotlib", "requests", "pyyaml")
_INSTALL = "pip install --quiet --disable-pip-version-check -r requirements.txt"
_FILES = 10_000

# Run by the installed Python, what `dstack run` does: look at the folder, then for a build.
LOOKUP = """\
import sys, time
from pathlib import Path
from dstack.cli.making import Code
from dstack.paths import find_home
from dstack.snapshot import Snapshots
from dstack.store.builds import Builds

home = find_home()
snapshots, builds = Snapshots(home), Builds(home)
(build,) = builds.all()
spent = []
for _ in range(15):
    begin = time.perf_counter()
    pending = snapshots.begin(Path(sys.argv[1]))
    tree = pending.finish().tree
    found = builds.find(build.parts, Code(snapshots, tree), lambda build: True)
    spent.append(time.perf_counter() - begin)
    pending.cancel()
    assert found.build is not None
print(sorted(spent)[7])
"""


def measure(context: Context) -> Iterable[Row]:
    """Each against the same without a build."""
    yield from _five_packages(context)
    yield from _ten_thousand(context)


def _five_packages(context: Context) -> Iterable[Row]:
    home, folder = context.folder("builds-home"), context.folder("builds")
    (folder / "requirements.txt").write_text("\n".join(PACKAGES) + "\n")
    built, each, bare = (folder / f"{name}.dstack.yml" for name in ("built", "each", "bare"))
    check = "commands: [true]\n"
    built.write_text(f"type: task\nbuild: ['{_INSTALL}']\n{check}")
    each.write_text(f"type: task\nsetup: ['{_INSTALL}']\n{check}")
    bare.write_text(f"type: task\n{check}")
    env = context.env(home)
    context.dstack(home, "build", ".", "-f", built.name, cwd=folder)

    def run(file: Path) -> float:
        return timed([context.binary, "run", ".", "-f", file.name], env=env, cwd=folder)

    ours, theirs = side_by_side(lambda: run(each), lambda: run(built), rounds=3)
    yield Row("install each time, against a build", ours * 1000, theirs * 1000, "ms", 20, True)
    pairs = [(run(built), run(bare)) for _ in range(15)]
    more = statistics.median(a for a, _ in pairs) - statistics.median(b for _, b in pairs)
    yield Row("a run from that build, more than without", more * 1000, None, "ms", 30)


def _ten_thousand(context: Context) -> Iterable[Row]:
    home, folder = context.folder("fits-home"), context.folder("fits")
    for i in range(_FILES):
        path = folder / f"package{i % 100}" / f"module{i}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"value = {i}\n")
    (folder / "requirements.txt").write_text("numpy\n")
    (folder / ".dstack.yml").write_text(
        "type: task\nbuild: [cat requirements.txt package7/* >all, ls]\ncommands: [true]\n"
    )
    who = ["-c", "user.name=b", "-c", "user.email=b@example.com"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    context.dstack(home, "build", ".", cwd=folder)
    status = statistics.median(timed(["git", "status"], cwd=folder) for _ in range(15))
    for what in ("as it was", "a file edited"):
        if what != "as it was":
            (folder / "package3" / "module3.py").write_text("edited\n")
        argv = [context.python, "-c", LOOKUP, str(folder)]
        out = subprocess.run(
            argv, env=context.env(home), capture_output=True, text=True, check=True
        ).stdout
        name = f"a build of 10,000 files fits ({what}), git status"
        yield Row(name, float(out) * 1000, status * 1000, "ms", 2)
