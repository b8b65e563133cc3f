"""How much: durations, sizes, CPUs, GPUs, prices, and ranges of them, from text.

Every function raises BadValue, a ValueError whose message is a sentence for people. They are
used for files and for the command line alike.
"""

from __future__ import annotations

from .shapes import Gpu, Range

KIB = 1024
_UNITS = {"B": 1, "K": KIB, "M": KIB**2, "G": KIB**3, "T": KIB**4, "P": KIB**5}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
MAX_SECONDS = 10 * 366 * 86400
MAX_SIZE = 1024 * KIB**5
MAX_CPUS = 100_000
MAX_GPUS = 100_000
DURATION_FORMS = "seconds, 30m, 3h, 2d or 1w"


class BadValue(ValueError):
    """A value that is not what it should be; `hint` says what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def shown(text: str) -> str:
    """A value as a message quotes it: on one line, not too long."""
    line = " ".join(text.split())
    return '"' + (line if len(line) <= 60 else line[:57] + "...") + '"'


def whole(text: str) -> int | None:
    """A whole number written with the digits 0-9; None for anything else."""
    # Fifteen digits are exact as a float too; int() itself refuses more than 4,300.
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        return None
    return int(text)


def number(text: str) -> float | None:
    """A number such as 2, 0.5 or .5; None for anything else (no sign, exponent, nan)."""
    before, dot, after = text.partition(".")
    if dot and not after:
        return None
    digits = before + after
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        return None
    return float(text)


def parse_duration(text: str) -> int:
    """Seconds; `off` is 0. Forms: `off`, `90`, `30m`, `3h`, `2d`, `1w`, `1h30m`."""
    stripped = text.strip()
    if stripped == "off":
        return 0
    return parse_seconds(stripped, "off, " + DURATION_FORMS)


def parse_seconds(text: str, forms: str = DURATION_FORMS) -> int:
    """Seconds, at least one. Forms: `90`, `30m`, `3h`, `2d`, `1w`, `1h30m`."""
    rest, total, seen = text.strip(), 0, False
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        count, unit = whole(digits), rest[len(digits) : len(digits) + 1]
        if count is None or (not unit and seen) or (unit and unit not in _SECONDS):
            break
        total += count * _SECONDS[unit or "s"]
        rest, seen = rest[len(digits) + 1 :], True
    if rest or not seen:
        message = f"{shown(text)} is not a duration: write {forms}"
        raise BadValue(message)
    if not 0 < total <= MAX_SECONDS:
        hint = 'write "off" for no limit' if "off" in forms else None
        message = f"{shown(text)} is not between 1 second and 10 years"
        raise BadValue(message, hint)
    return total


def _size(text: str, unit: str = "") -> tuple[int, str]:
    rest = text.strip().upper()
    digits = rest.rstrip("BKMGTPI ")
    own = rest[len(digits) :].strip()
    short = own.removesuffix("B").removesuffix("I") if own != "B" else "B"
    amount = number(digits)
    if amount is None or (own and short not in _UNITS) or own in ("BI", "IB"):
        message = f"{shown(text)} is not a size"
        raise BadValue(message, "write it as 24GB, 1.5GB or 512MB")
    size = round(amount * _UNITS[short or unit or "G"])
    if not 0 < size <= MAX_SIZE:
        message = f"{shown(text)} is not between 1 byte and 1024 PB"
        raise BadValue(message)
    return size, short


def parse_size(text: str) -> int:
    """Bytes. `24GB`, `1.5GB`, `512MB`, `512M`, `512MiB`; a number alone is GB.

    1 KB is 1024 bytes, as memory is counted.
    """
    return _size(text)[0]


def _ends(text: str, what: str) -> tuple[str, str] | None:
    """The two sides of `LEAST..MOST`; None when it is no range."""
    least, dots, most = text.strip().partition("..")
    if not dots:
        return None
    if not least.strip() and not most.strip():
        message = f"{shown(text)} is a range without ends"
        raise BadValue(message, f"write {what}")
    return least.strip(), most.strip()


def _ordered(text: str, least: float | None, most: float | None) -> Range:
    if least is not None and most is not None and least > most:
        message = f"{shown(text)} starts above its end"
        raise BadValue(message)
    return Range(least, most)


def parse_range_of_sizes(text: str) -> Range:
    """Bytes. One size, or `24GB..`, `..80GB`, `24GB..80GB`, `24..80GB`."""
    ends = _ends(text, "24GB.., ..80GB or 24GB..80GB")
    if ends is None:
        size = parse_size(text)
        return Range(size, size)
    most, unit = _size(ends[1]) if ends[1] else (None, "")
    least = _size(ends[0], unit)[0] if ends[0] else None
    return _ordered(text, least, most)


def parse_cpu(text: str) -> Range:
    """How many CPUs: `4`, `0.5`, `2..`, `..8`, `2..8`."""
    ends = _ends(text, "2.., ..8 or 2..8") or (text.strip(), text.strip())
    values: list[float | None] = []
    for end in ends:
        value = number(end) if end else None
        if (end or ".." not in text) and (value is None or not 0 < value <= MAX_CPUS):
            message = f"{shown(text)} is not a number of CPUs"
            raise BadValue(message, "write it as 4, 0.5, 2.. or 2..8")
        values.append(value)
    return _ordered(text, *values)


def parse_gpu_count(text: str) -> Range:
    """How many GPUs: `0`, `2`, `1..`, `2..4`."""
    ends = _ends(text, "1.., ..4 or 1..4") or (text.strip(), text.strip())
    values: list[float | None] = []
    for end in ends:
        value = whole(end) if end else None
        if (end or ".." not in text) and (value is None or value > MAX_GPUS):
            message = f"{shown(text)} is not a number of GPUs"
            raise BadValue(message, "write it as 1, 2.. or 2..4")
        values.append(value)
    return _ordered(text, *values)


def parse_gpu_name(text: str) -> str:
    """A GPU's name: it starts with a letter and holds letters, digits, spaces, `.`, `_`, `-`."""
    name = text.strip()
    inner = name.replace(" ", "").replace("-", "").replace("_", "").replace(".", "")
    if not (name[:1].isalpha() and inner.isascii() and inner.isalnum() and len(name) <= 60):
        message = f"{shown(text)} is not the name of a GPU"
        raise BadValue(message, "write it as A100, H100 or RTX4090")
    return name


def parse_gpu(text: str) -> Gpu:
    """`2`, `1..`, `A100`, `24GB`, `24GB..`, `A100:2`, `A100:40GB:2`: each part at most once."""
    count: Range | None = None
    memory: Range | None = None
    name: str | None = None
    for part in text.split(":"):
        if not part.strip():
            message = f"{shown(text)} has an empty part"
            raise BadValue(message, "write it as A100, 24GB, A100:2 or A100:40GB:2")
        twice: str | None
        if part.strip()[0].isalpha():
            twice, name = "name" if name else None, parse_gpu_name(part)
        elif any(ch.isalpha() for ch in part):
            twice, memory = "memory" if memory else None, parse_range_of_sizes(part)
        else:
            twice, count = "count" if count else None, parse_gpu_count(part)
        if twice:
            message = f"{shown(text)} gives the {twice} twice"
            raise BadValue(message, "write it as A100, 24GB, A100:2 or A100:40GB:2")
    return Gpu(count or Range(1, 1), name, memory)


def parse_price(text: str) -> float:
    """Dollars an hour, more than 0."""
    price = number(text.strip().removeprefix("$"))
    if price is None or not 0 < price <= 1_000_000:
        message = f"{shown(text)} is not a price"
        raise BadValue(message, "write dollars an hour, such as 1.5")
    return price
