"""`python bench/run.py [NAME...]`: measure the installed dstack and print the table.

DSTACK_BIN names the command (default: the one that `./test` installed). Exits with 1 when a figure
falls short of its goal.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from bench.harness import Context, Row, table  # noqa: E402 (the folder must be on the path first)

BENCHES = [
    *("size", "start", "latency", "trees", "ports", "filter", "output", "sleeping"),
    *("builds", "containers", "ssh"),
]


def main() -> int:
    """Run the benches named, or all."""
    parser = argparse.ArgumentParser(description="Measure the installed dstack.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    names = parser.parse_args().names or BENCHES
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"no bench called {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    binary = Path(os.environ.get("DSTACK_BIN") or ROOT / ".work/installed/bin/dstack")
    if not binary.exists():
        parser.error(f"{binary} is not there: run `./test e2e` once, or set DSTACK_BIN")
    rows: list[Row] = []
    broken = False
    with tempfile.TemporaryDirectory(prefix="dstack-bench-") as scratch:
        context = Context(binary, binary.with_name("python"), Path(scratch))
        for name in names:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                # What was measured before a failure stays in `rows`.
                rows += importlib.import_module(f"bench.{name}").measure(context)
            except Exception:
                traceback.print_exc()
                broken = True
    print(table(rows))
    return 0 if rows and not broken and all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
