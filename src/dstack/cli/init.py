"""`dstack init`: a first task file that runs as it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import DstackError, UsageError

HELP = "write a first .dstack.yml"

FIRST = """\
# What `dstack run .` does here. `dstack validate` checks this file.
type: task

# They run in order, in one shell; the first that fails ends the run.
commands:
  - echo "Hello from $DSTACK_RUN_NAME, with $(python --version)"

# Uncomment what you need.

# The run's name; two random words if it has none.
# name: hello

# The Python of the run, with pip; the version that runs dstack if not given.
# python: "3.12"

# Run once, before the commands, when the environment is made.
# setup:
#   - pip install -r requirements.txt

# NAME alone takes the value of your shell; secrets are set with `dstack secrets set TOKEN`.
# env:
#   - EPOCHS=20
#   - HOME_OF_MINE=$HOME/mine
#   - TOKEN=${{ secrets.TOKEN }}

# The run's port 8000 at 127.0.0.1:8000, and 6006 at the first free port from there up.
# ports:
#   - 8000
#   - "*:6006"

# Folders that are kept between runs.
# cache:
#   - ~/.cache/pip
#   - checkpoints

# What the run needs, and how long it may take.
# resources:
#   cpu: 2..8
#   memory: 4GB
# max_duration: 3h
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("dir", nargs="?", default=".", metavar="DIR", help="where (default: here)")


def run(args: argparse.Namespace) -> int:
    """Write the file; an existing one is left as it is."""
    directory = Path(args.dir)
    target = directory / ".dstack.yml"
    for existing in (target, directory / ".dstack.yaml"):
        if existing.exists() or existing.is_symlink():
            message = f"{existing} is already there"
            raise UsageError(message, hint=f"dstack run {args.dir}")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(FIRST)
    except FileNotFoundError:
        message = f"there is no folder {args.dir}"
        raise UsageError(message) from None
    except OSError as error:
        message = f"cannot write {target}: {error.strerror}"
        raise DstackError(message) from None
    print(f"wrote {target}\nnext: dstack run {args.dir}", file=sys.stderr)
    return 0
