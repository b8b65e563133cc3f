"""`dstack validate`: check files, and say everything that is wrong with them at once."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..config.load import (
    Context,
    check_file_name,
    find_task_file,
    load_profiles,
    load_task,
    read_file,
)
from ..errors import FileErrors, Problem, UsageError

HELP = "check task files and profiles"
PROFILE_NAMES = ("profiles.yml", "profiles.yaml")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="task files or profiles.yml (default: .dstack.yml)"
    )
    parser.add_argument("--json", action="store_true", help="print the problems as a JSON array")


def run(args: argparse.Namespace) -> int:
    """Check the files; 2 when something is wrong, 0 when nothing is."""
    files = args.files or [find_task_file(Path(), None, Path()).name]
    found = [(file, check(file)) for file in files]
    if args.json:
        print(_json([problem for _, problems in found for problem in problems]))
    for file, problems in found if not args.json else ():
        if not problems:
            print(f"{file}: ok", flush=True)
        for problem in problems:
            print(problem, file=sys.stderr)
    return 2 if any(problems for _, problems in found) else 0


def check(file: str) -> list[Problem]:
    """What is wrong with one file; nothing of the command line or of secrets is known."""
    path = Path(file)
    try:
        if path.name in PROFILE_NAMES:
            load_profiles(read_file(path, file), file)
        else:
            check_file_name(path.name)
            load_task(read_file(path, file), file, Context(check_args=False))
    except FileErrors as errors:
        return errors.problems
    except UsageError as error:
        return [Problem(file, 1, 1, None, error.message, error.hint)]
    return []


def _json(problems: list[Problem]) -> str:
    import json

    fields = [
        {
            "file": each.file,
            "line": each.line,
            "column": each.column,
            "property": each.where,
            "message": each.text,
            "hint": each.hint,
        }
        for each in problems
    ]
    return json.dumps(fields, indent=2)
