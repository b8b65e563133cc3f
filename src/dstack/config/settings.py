"""What holds when command line, task file and profile say different things, or nothing."""

from __future__ import annotations

from .shapes import Resources, Settings

# What holds when nothing is said; the reference page of profiles lists the same.
DEFAULTS = Settings(spot_policy="auto", max_duration=72 * 3600)


def resolve(command_line: Settings, task: Settings, profile: Settings | None) -> Settings:
    """The settings that hold: command line, then task file, then profile, then the defaults.

    Resources are merged field by field: `--gpu` leaves the file's `memory` as it is. `retry` and
    `max_price` may stay None (no retry, no limit), `max_duration` 0 is off.
    """
    merged = DEFAULTS
    for settings in (profile, task, command_line):
        if settings is not None:
            merged = _over(settings, merged)
    return merged


def _over(above: Settings, below: Settings) -> Settings:
    fields = {
        name: getattr(above, name) if getattr(above, name) is not None else getattr(below, name)
        for name in Settings.__struct_fields__
        if name != "resources"
    }
    resources = {
        name: value
        if (value := getattr(above.resources, name)) is not None
        else getattr(below.resources, name)
        for name in Resources.__struct_fields__
    }
    return Settings(**fields, resources=Resources(**resources))
