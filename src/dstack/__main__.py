"""`dstack`, and `python -m dstack`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command and leave at once: tearing the interpreter down costs milliseconds."""
    from .cli.main import main as run

    try:
        code = run()
    except SystemExit as leaving:  # argparse
        code = leaving.code if isinstance(leaving.code, int) else 2
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
