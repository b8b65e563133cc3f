"""`dstack validate`: check files, and say everything that is wrong with them at once."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..config.load import (
    DEFAULT_NAMES,
    Context,
    check_file_name,
    find_task_file,
    load_profiles,
    load_task,
    others_in,
    read_file,
)
from ..errors import FileErrors, Problem, UsageError
from .project import PROFILES, find_root

HELP = "check task files and profiles"
PROFILE_NAMES = ("profiles.yml", "profiles.yaml")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="task files, profiles.yml, or folders with such (default: this folder)",
    )
    parser.add_argument("--json", action="store_true", help="print the problems as a JSON array")


def run(args: argparse.Namespace) -> int:
    """Check the files; 2 when something is wrong, 0 when nothing is."""
    files: list[str] = []
    for file in args.files or ["."]:
        files += _files_of(Path(file)) if Path(file).is_dir() else [file]
    found = [(file, check(file)) for file in files]
    if args.json:
        print(_json([problem for _, problems in found for problem in problems]))
    for file, problems in found if not args.json else ():
        if not problems:
            print(f"{file}: ok", flush=True)
        for problem in problems:
            print(problem, file=sys.stderr)
    return 2 if any(problems for _, problems in found) else 0


def _files_of(folder: Path) -> list[str]:
    """What `dstack run` may read there. Raises UsageError when there is no task file."""
    names = others_in(folder)
    if not names or any(os.path.lexists(folder / name) for name in DEFAULT_NAMES):
        names.insert(0, find_task_file(folder, None, Path()).name)
    root = find_root(folder.resolve()) or folder.resolve()
    profiles = [root / name for name in PROFILES if (root / name).is_file()]
    return [str(folder / name) for name in names] + [os.path.relpath(p) for p in profiles[:1]]


def check(file: str) -> list[Problem]:
    """What is wrong with one file; nothing of the command line or of secrets is known."""
    path = Path(file)
    try:
        if path.name in PROFILE_NAMES:
            load_profiles(read_file(path, file), file)
        else:
            data = read_file(path, file)
            check_file_name(path.name)
            load_task(data, file, Context(check_args=False))
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
