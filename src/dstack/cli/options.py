"""Options that several commands share, and what they are read into."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from ..config.shapes import EnvVar, Port, Range, Resources, Retry, Settings
from ..errors import UsageError

T = TypeVar("T")


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


def read(option: str, parse: Callable[[str], T], text: str) -> T:
    """An option's value. Raises UsageError that names the option."""
    try:
        return parse(text)
    except ValueError as error:
        hint = getattr(error, "hint", None)
        message = f"{option} {text}: {error}"
        raise UsageError(message, hint=hint) from None


def _exactly(parse: Callable[[str], int]) -> Callable[[str], Range]:
    def parsed(text: str) -> Range:
        value = parse(text)
        return Range(value, value)

    return parsed


def settings_of(args: argparse.Namespace) -> Settings:
    """What the command line says that files can say too. Raises UsageError."""
    from ..config import quantities as q

    cpu = read("--cpu", q.parse_cpu, args.cpu) if args.cpu else None
    memory = read("--memory", q.parse_range_of_sizes, args.memory) if args.memory else None
    gpu = read("--gpu", q.parse_gpu, args.gpu) if args.gpu else None
    shm = read("--shm-size", q.parse_size, args.shm_size) if args.shm_size else None
    retry = None
    if args.no_retry:
        retry = Retry(on_events=(), duration=0)
    elif args.retry_limit:
        limit = read("--retry-limit", q.parse_seconds, args.retry_limit)
        retry = Retry(on_events=("no-capacity", "interruption", "error"), duration=limit)
    duration = None
    if args.max_duration is not None:
        duration = read("--max-duration", q.parse_duration, args.max_duration)
    price = read("--max-price", q.parse_price, args.max_price) if args.max_price else None
    return Settings(
        backends=tuple(args.backend) or None,
        resources=Resources(cpu=cpu, memory=memory, gpu=gpu, shm_size=shm),
        spot_policy=args.spot_policy,
        max_price=price,
        retry=retry,
        max_duration=duration,
    )


def name_of(args: argparse.Namespace) -> str | None:
    """`-n`. Raises UsageError."""
    from ..config.values import parse_name

    return None if args.name is None else read("-n", parse_name, args.name)


def env_of(args: argparse.Namespace) -> tuple[EnvVar, ...]:
    """`-e` options. Raises UsageError."""
    from ..config.values import parse_env_item

    return tuple(read("-e", parse_env_item, text) for text in args.env)


def ports_of(args: argparse.Namespace) -> tuple[Port, ...]:
    """`-p` options. Raises UsageError."""
    from ..config.values import parse_port

    return tuple(read("-p", parse_port, text) for text in args.port)


def split_args(
    parser: argparse.ArgumentParser, argv: list[str]
) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """The options, and what dstack does not know or what stands behind `--`."""
    rest: list[str] = []
    if "--" in argv:
        at = argv.index("--")
        argv, rest = argv[:at], argv[at + 1 :]
    args, unknown = parser.parse_known_args(argv)
    return args, (*unknown, *rest)
