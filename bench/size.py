"""What `pip install` puts on the disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from bench.harness import Context, Row

LIST = """\
import importlib.metadata, pathlib
for d in importlib.metadata.distributions():
    if d.name not in ("pip", "setuptools"):
        for f in d.files or ():
            print(pathlib.Path(d.locate_file(f)))
"""


def measure(context: Context) -> Iterable[Row]:
    """The files of dstack and of all that it depends on, uv included; MB are 10^6 bytes."""
    done = subprocess.run([context.python, "-c", LIST], capture_output=True, text=True, check=True)
    files = {Path(line) for line in done.stdout.splitlines()}
    compiled = {
        c for f in files if f.suffix == ".py" for c in f.parent.glob(f"__pycache__/{f.stem}.*")
    }
    total = sum(f.stat().st_size for f in files | compiled if f.is_file()) / 1e6
    uv = sum(f.stat().st_size for f in files if f.is_file() and f.name in {"uv", "uvx"}) / 1e6
    yield Row("installed size", total, None, "MB", 80, note=f"of it uv {uv:.0f} MB")
