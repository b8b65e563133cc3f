"""What options that override a file's settings are read into."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from ..config.shapes import EnvVar, Port, Resources, Retry, Settings
from ..errors import UsageError

T = TypeVar("T")


def read(option: str, parse: Callable[[str], T], text: str) -> T:
    """An option's value. Raises UsageError that names the option."""
    try:
        return parse(text)
    except ValueError as error:
        hint = getattr(error, "hint", None)
        message = f"{option} {text}: {error}"
        raise UsageError(message, hint=hint) from None


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
