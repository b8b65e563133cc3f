"""`dstack schema`: the JSON Schema of the task file, for editors."""

from __future__ import annotations

import argparse

HELP = "print the JSON Schema of the task file"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--profiles", action="store_true", help="the one of profiles.yml instead")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    import json

    from ..config.schema import profiles_schema, task_schema

    print(json.dumps(profiles_schema() if args.profiles else task_schema(), indent=2))
    return 0
