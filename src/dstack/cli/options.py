"""Options that several commands share.

Light on purpose: `dstack run` reads them before it starts git, and imports the rest meanwhile.
"""

from __future__ import annotations

import argparse


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """What says which task is meant, and overrides what its file says."""
    add = parser.add_argument
    add("dir", metavar="DIR", help="the folder the commands run in; its .dstack.yml is the task")
    add("-f", "--file", metavar="FILE", help="another task file (NAME.dstack.yml)")
    add("-n", "--name", metavar="NAME", help="the run's name")
    add(
        "-e",
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="set a variable; without VALUE, take this shell's",
    )
    add(
        "-p",
        "--port",
        metavar="[LOCAL:]PORT",
        action="append",
        default=[],
        help="make a port of the run reachable at 127.0.0.1",
    )
    add("--backend", metavar="B", action="append", default=[], help="where to run it")
    add("--profile", metavar="P", help="a profile of .dstack/profiles.yml")
    add("--cpu", metavar="N", help="CPUs")
    add("--memory", metavar="SIZE", help="memory: 8GB, 16GB..")
    add("--gpu", metavar="SPEC", help="GPUs: 1, A100, 24GB, A100:2")
    add("--shm-size", metavar="SIZE", help="shared memory")
    spot = parser.add_mutually_exclusive_group()
    for flag, value, text in (
        ("--spot", "spot", "on spot machines only"),
        ("--on-demand", "on-demand", "never on spot machines"),
        ("--spot-auto", "auto", "spot machines where there are any"),
    ):
        spot.add_argument(flag, dest="spot_policy", action="store_const", const=value, help=text)
    add("--max-price", metavar="X", help="dollars an hour, at most")
    add("--max-duration", metavar="D", help="stop it after: 30m, 3h, 2d, off")
    retry = parser.add_mutually_exclusive_group()
    retry.add_argument("--retry-limit", metavar="D", help="try again for this long")
    retry.add_argument("--no-retry", action="store_true", help="do not try again")


def split_args(
    parser: argparse.ArgumentParser, argv: list[str]
) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """The options, and what dstack does not know or what stands behind `--`."""
    rest: list[str] = []
    if "--" in argv:
        at = argv.index("--")
        argv, rest = argv[:at], argv[at + 1 :]
    args, unknown = parser.parse_known_args(argv)
    for word in unknown:
        if word.startswith("--"):
            _warn_if_near(parser, word.partition("=")[0])
    return args, (*unknown, *rest)


def _warn_if_near(parser: argparse.ArgumentParser, word: str) -> None:
    """An argument of the run may have been meant for dstack: `--backnd gpu-box` would run here."""
    import difflib

    from ..text import warn

    known = [text for action in parser._actions for text in action.option_strings]
    near = difflib.get_close_matches(word, known, 1, 0.8)
    if near:
        warn(f"{word} is handed to the run; did you mean {near[0]}? If not, put it behind --")
