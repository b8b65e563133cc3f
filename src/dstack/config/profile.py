"""What profiles hold, and what the task file shares with them."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from ..errors import FileErrors, UsageError
from .forms import (
    ANY_SCALAR,
    EitherForm,
    Form,
    ListForm,
    Property,
    Reader,
    RecordForm,
    ScalarForm,
    UniqueForm,
    pattern,
)
from .packed import Memory, parse_once
from .quantities import (
    BadValue,
    parse_cpu,
    parse_duration,
    parse_gpu,
    parse_gpu_count,
    parse_gpu_name,
    parse_price,
    parse_range_of_sizes,
    parse_seconds,
    parse_size,
    shown,
)
from .shapes import Gpu, Range, Resources, Retry, RetryEvent, Settings, SpotPolicy
from .source import Mapping, Scalar, Sequence
from .values import parse_bool, parse_label

RETRY_EVENTS: tuple[RetryEvent, ...] = get_args(RetryEvent)
SPOT_POLICIES: tuple[SpotPolicy, ...] = get_args(SpotPolicy)
DEFAULT_RETRY_SECONDS = 3600

_NUMBER = r"\s*\$?[0-9]*\.?[0-9]+\s*"
_SIZE = r"\s*[0-9]*\.?[0-9]+\s*(?:[BbKkMmGgTtPp][Ii]?[Bb]?)?\s*"
_SECONDS = r"\s*(?:[0-9]+|(?:[0-9]+[smhdw])+)\s*"
_SIZES = rf"{_SIZE}|{_SIZE}\.\.(?:{_SIZE})?|\.\.{_SIZE}"
_CPU = r"[0-9]*\.?[0-9]+"
_CPUS = rf"{_CPU}|{_CPU}\.\.(?:{_CPU})?|\.\.{_CPU}"
_COUNTS = r"[0-9]+|[0-9]+\.\.(?:[0-9]+)?|\.\.[0-9]+"


def one_of(choices: tuple[str, ...]) -> ScalarForm:
    """One of a few words."""
    listed = ", ".join(choices[:-1]) + " or " + choices[-1] if len(choices) > 1 else choices[0]

    def parse_choice(text: str) -> str:
        if text in choices:
            return text
        message = f"{shown(text)} is not {listed}"
        raise BadValue(message)

    return ScalarForm(listed, parse_choice, {"enum": list(choices)})


BOOL = ScalarForm("true or false", parse_bool, {"enum": [True, False, "true", "false"]})
SIZES = ScalarForm("a size, such as 24GB, or a range", parse_range_of_sizes, pattern(_SIZES))
SECONDS = ScalarForm("a duration, such as 3h", parse_seconds, pattern(_SECONDS))
LABEL = ScalarForm("a name", parse_label, pattern("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", numbers=False))

GPU_COUNT = ScalarForm("a number of GPUs, or a range", parse_gpu_count, pattern(_COUNTS))
GPU_NAME = ScalarForm(
    "a GPU's name", parse_gpu_name, pattern("[A-Za-z][A-Za-z0-9 ._-]*", numbers=False)
)
GPU: dict[str, Property] = {
    "name": Property(GPU_NAME, "What the GPU is called.", example="name: A100"),
    "count": Property(GPU_COUNT, "How many, or a range.", default="1", example="count: 1..4"),
    "memory": Property(SIZES, "The memory each has, or a range.", example="memory: 24GB.."),
}


def _gpu(read: dict[str, Any]) -> Gpu:
    return Gpu(read.get("count", Range(1, 1)), read.get("name"), read.get("memory"))


_GPU_WHAT = "a number, a name, a memory size, or name, count and memory"
RESOURCES: dict[str, Property] = {
    "cpu": Property(
        ScalarForm("a number of CPUs, or a range", parse_cpu, pattern(_CPUS)),
        "How many CPUs, or a range.",
        example="cpu: 2..",
    ),
    "memory": Property(SIZES, "How much memory, or a range.", example="memory: 24GB"),
    "gpu": Property(
        EitherForm(
            _GPU_WHAT,
            scalar=ScalarForm(_GPU_WHAT, parse_gpu, dict(ANY_SCALAR)),
            mapping=RecordForm("name, count and memory", GPU, _gpu),
        ),
        "Which GPUs: a number, a name, a memory size, these joined by colons, or a mapping.",
        example="gpu: A100:40GB:2",
    ),
    "shm_size": Property(
        ScalarForm("a size, such as 16GB", parse_size, pattern(_SIZE)),
        "The size of the shared memory folder (/dev/shm).",
        example="shm_size: 16GB",
    ),
    "disk": Property(SIZES, "How much free disk, or a range.", example="disk: 100GB"),
}

_EVENTS_WHAT = "a list out of " + ", ".join(RETRY_EVENTS)
RETRY: dict[str, Property] = {
    "on_events": Property(
        UniqueForm(one_of(RETRY_EVENTS), _EVENTS_WHAT, least=1),
        "After what to try again.",
        default="all three",
        example="on_events: [no-capacity, interruption]",
    ),
    "duration": Property(
        SECONDS,
        "How long after it was submitted the run is still tried again.",
        default="1h",
        example="duration: 3h",
    ),
}
RETRY_POLICY: dict[str, Property] = {
    "retry": Property(BOOL, "Whether to try again.", default="true", example="retry: true"),
    "limit": Property(
        SECONDS,
        "How long after it was submitted the run is still tried again.",
        default="1h",
        example="limit: 3h",
    ),
}


def retry_of(value: bool) -> Retry:
    """`retry: true` is after every event, for an hour; `false` is never, said aloud."""
    return Retry(RETRY_EVENTS, DEFAULT_RETRY_SECONDS) if value else Retry((), 0)


def _retry(read: dict[str, Any]) -> Retry:
    events = read.get("on_events", RETRY_EVENTS)
    return Retry(tuple(events), read.get("duration", DEFAULT_RETRY_SECONDS))


def _retry_policy(read: dict[str, Any]) -> Retry:
    if not read.get("retry", True):
        return Retry((), 0)
    return Retry(("no-capacity", "interruption"), read.get("limit", DEFAULT_RETRY_SECONDS))


_RETRY_WHAT = "true, false, or on_events and duration"
SETTINGS: dict[str, Property] = {
    "backends": Property(
        UniqueForm(LABEL, "a list of backends", least=1),
        "Which backends may be taken: the first that can.",
        default="the default one",
        example="backends: [local]",
    ),
    "resources": Property(
        RecordForm("a mapping", RESOURCES, lambda read: Resources(**read)),
        "What the run asks for.",
        default="nothing",
        example="resources: {cpu: 2, memory: 8GB}",
    ),
    "spot_policy": Property(
        one_of(SPOT_POLICIES),
        "Whether machines that may be taken away are used: `spot`, `on-demand` or `auto`.",
        default="auto",
        example="spot_policy: on-demand",
    ),
    "max_price": Property(
        ScalarForm("a price in dollars an hour", parse_price, pattern(_NUMBER)),
        "The most that a machine may cost, in dollars an hour.",
        default="no limit",
        example="max_price: 1.5",
    ),
    "retry": Property(
        EitherForm(
            _RETRY_WHAT,
            scalar=ScalarForm(_RETRY_WHAT, lambda text: retry_of(parse_bool(text)), BOOL.schema()),
            mapping=RecordForm("on_events and duration", RETRY, _retry),
        ),
        "Whether, after what and for how long a run is tried again.",
        default="false",
        example="retry: {on_events: [error], duration: 3h}",
    ),
    "retry_policy": Property(
        RecordForm("retry and limit", RETRY_POLICY, _retry_policy),
        "The older form of `retry`, for `no-capacity` and `interruption`.",
        example="retry_policy: {retry: true, limit: 3h}",
    ),
    "max_duration": Property(
        ScalarForm(
            "off, or a duration such as 3h",
            parse_duration,
            pattern(rf"off|{_SECONDS}") | {"type": ["string", "number", "boolean"]},
        ),
        "How long the run may take before it is stopped: `off`, seconds, `30m`, `3h`, `2d`, `1w`.",
        default="72h",
        example="max_duration: 3h",
    ),
}


def settings_of(read: dict[str, Any]) -> Settings:
    """What was read of SETTINGS, as its shape."""
    return Settings(
        backends=read.get("backends"),
        resources=read.get("resources", Resources()),
        spot_policy=read.get("spot_policy"),
        max_price=read.get("max_price"),
        retry=read.get("retry", read.get("retry_policy")),
        max_duration=read.get("max_duration"),
    )


def check_settings(node: Mapping, reader: Reader, where: str) -> None:
    """What holds between the settings."""
    if node.get("retry") and node.get("retry_policy"):
        key = node.entries["retry_policy"][0]
        path = f"{where}.retry_policy" if where else "retry_policy"
        reader.problem(key, path, "says the same as retry: keep one of them", "keep retry")


class _Profile(RecordForm):
    def check(self, node: Mapping, reader: Reader, where: str) -> None:
        """What holds between the values."""
        check_settings(node, reader, where)


PROFILE: dict[str, Property] = {
    "name": Property(LABEL, "What `--profile` calls it.", example="name: large", required=True),
    "default": Property(
        BOOL,
        "Whether it is taken without `--profile`; at most one profile is.",
        default="false",
        example="default: true",
    ),
    **SETTINGS,
}


def _profile(read: dict[str, Any]) -> tuple[str, bool, Settings]:
    return read.get("name", ""), read.get("default", False), settings_of(read)


_PROFILE_FORM: Form = _Profile("a mapping", PROFILE, _profile)
PROFILES: dict[str, Property] = {
    "profiles": Property(
        ListForm(_PROFILE_FORM, "a list of profiles"),
        "The project's profiles.",
        example="profiles: [{name: large, default: true}]",
        required=True,
    ),
}


class Profiles(msgspec.Struct, frozen=True):
    """A project's profiles in the order written; `default` is the name of one, or None."""

    profiles: dict[str, Settings] = {}
    default: str | None = None
    filename: str = ".dstack/profiles.yml"

    def pick(self, name: str | None) -> tuple[str, Settings] | None:
        """The named profile, or the default one; None when there is none.

        Raises UsageError for a name that does not exist.
        """
        chosen = name or self.default
        if chosen is None:
            return None
        if chosen in self.profiles:
            return chosen, self.profiles[chosen]
        listed = ", ".join(self.profiles)
        hint = f"there are: {listed}" if listed else f"{self.filename} has none"
        message = f'there is no profile "{chosen}"'
        raise UsageError(message, hint=hint)


def load_profiles(source: bytes, filename: str, memory: Memory | None = None) -> Profiles:
    """Read a profiles file. Raises FileErrors with everything that is wrong in it."""
    document = parse_once(source, filename, memory)
    reader = Reader(document, None)
    form = RecordForm("a mapping with `profiles`", PROFILES, lambda read: read.get("profiles", ()))
    profiles = form.read(document.root, reader, "")
    if isinstance(document.root, Mapping):
        _check_names(document.root.get("profiles"), reader)
    if reader.problems:
        raise FileErrors(sorted(reader.problems, key=lambda each: (each.line, each.column)))
    default = next((name for name, is_default, _ in profiles if is_default), None)
    return Profiles({name: settings for name, _, settings in profiles}, default, filename)


def _check_names(node: object, reader: Reader) -> None:
    seen: dict[str, int] = {}
    default: int | None = None
    for item in node.items if isinstance(node, Sequence) else ():
        name = item.get("name") if isinstance(item, Mapping) else None
        chosen = item.get("default") if isinstance(item, Mapping) else None
        if isinstance(name, Scalar):
            if name.text in seen:
                text = f"{shown(name.text)} stands here twice; first in line {seen[name.text]}"
                reader.problem(name, "profiles.name", text)
            seen.setdefault(name.text, name.line)
        if isinstance(chosen, Scalar) and chosen.text == "true":
            if default is not None:
                text = f"only one profile can be the default; the one in line {default} is"
                reader.problem(chosen, "profiles.default", text)
            default = default or chosen.line
