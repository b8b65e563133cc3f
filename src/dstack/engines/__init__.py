"""HOW a run runs. An engine is one file and one line here; it is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError
from ..paths import Home
from .base import Engine

if TYPE_CHECKING:
    from ..hosts.base import Host

# name -> (module below this package, class)
ENGINES = {
    "process": ("process", "ProcessEngine"),
    "docker": ("container", "DockerEngine"),
    "podman": ("container", "PodmanEngine"),
}


def get_engine(name: str, home: Home, host: Host | None = None) -> Engine:
    """The engine of that name, for jobs below `home` on `host` or this machine.

    Raises UsageError.
    """
    if name not in ENGINES:
        message = f'there is no engine "{name}"'
        raise UsageError(message, hint=f"the engines are: {', '.join(ENGINES)}")
    from importlib import import_module

    module, kind = ENGINES[name]
    engine: Engine = getattr(import_module(f".{module}", __name__), kind)(home, host)
    return engine
