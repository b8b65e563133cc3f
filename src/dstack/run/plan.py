"""Task + settings + what the host offers -> Plan. Pure; says no before anything starts."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..config.shapes import Gpu, Range, Resources, Settings, Task
from ..errors import CannotStart, NoCapacity
from .model import Plan


class Offer(msgspec.Struct, frozen=True):
    """What is known of the place a run is planned for. `memory` and `disk` are bytes.

    `gpus` is (number, name, bytes of memory) of each, `gpus_why` what is wrong with those that are
    not there. `limits` is whether cpu and memory can be enforced.
    `client` is the container engine's command, `base_image` what a task without an image runs in.
    """

    backend: str
    engine: str
    cpus: int
    memory: int
    disk: int
    gpus: tuple[tuple[int, str, int], ...] = ()
    gpus_why: str | None = None
    limits: bool = False
    limits_why: str | None = None
    client: str = ""
    base_image: str = ""

    @property
    def containers(self) -> bool:
        """Whether its engine runs containers."""
        return self.engine != "process"


class Place(msgspec.Struct, frozen=True):
    """Where the task comes from: see Plan for the meaning of each."""

    project: str
    workdir: str
    file: str
    cache_key: str
    base_env: Mapping[str, str]


def _size(count: float) -> str:
    for unit, name in ((1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if count >= unit:
            return f"{count / unit:.4g}{name}"
    return f"{count:.0f} bytes"


def _gpu_fits(gpu: Gpu, name: str, memory: int) -> bool:
    if gpu.name is not None and gpu.name.lower() not in name.lower().replace("-", " ").split():
        return False
    # nvidia-smi counts a little less than the size on the box; 5 % is what cards differ by.
    least = gpu.memory.least if gpu.memory is not None else None
    return least is None or memory >= least * 0.95


def _gpu_there(name: str, memory: int) -> str:
    return f"{name} {_size(memory)}" if memory else f"{name} of unknown memory"


def _gpu_text(gpu: Gpu) -> str:
    name = f"{gpu.name} " if gpu.name else ""
    memory = gpu.memory.least if gpu.memory is not None else None
    size = f" with {_size(memory)}" if memory else ""
    count = int(gpu.count.least or 1)
    return f"{count} {name}GPU{'s' if count != 1 else ''}{size}"


def fitting_gpus(gpu: Gpu, offer: Offer) -> tuple[int, ...]:
    """The numbers of the GPUs that fit. Raises NoCapacity when too few of the kind exist."""
    if gpu.count.most == 0:
        return ()
    fitting = [n for n, name, memory in offer.gpus if _gpu_fits(gpu, name, memory)]
    if len(fitting) >= int(gpu.count.least or 1):
        return tuple(fitting)
    there = ", ".join(_gpu_there(name, memory) for _, name, memory in offer.gpus) or "no GPU"
    if offer.gpus_why is not None:
        there += f" ({offer.gpus_why})"
    message = f"the run asks for {_gpu_text(gpu)}; {offer.backend} has {there}"
    raise NoCapacity(message)


def _gpu_count(gpu: Gpu | None) -> tuple[int, int] | None:
    if gpu is None or gpu.count.most is None:
        return None if gpu is None else (int(gpu.count.least or 1), 1 << 16)
    return int(gpu.count.least or 1), int(gpu.count.most)


def _check(what: str, asked: Range | int | None, has: float, offer: Offer, *, size: bool) -> None:
    least = asked.least if isinstance(asked, Range) else asked
    if least is None or least <= has:
        return
    show = _size if size else "{:g}".format
    message = f"the run asks for {show(least)} {what}; {offer.backend} has {show(has)}"
    raise NoCapacity(message)


def check_resources(asked: Resources, offer: Offer) -> None:
    """Raises NoCapacity, saying what there is, when the place cannot satisfy what is asked."""
    _check("CPUs", asked.cpu, offer.cpus, offer, size=False)
    _check("of memory", asked.memory, offer.memory, offer, size=True)
    _check("of shared memory", asked.shm_size, offer.memory, offer, size=True)
    _check("of disk", asked.disk, offer.disk, offer, size=True)
    if asked.gpu is not None:
        fitting_gpus(asked.gpu, offer)


def _check_container_only(task: Task, offer: Offer) -> None:
    if offer.containers:
        return
    only = {
        "image": task.image,
        "entrypoint": task.entrypoint,
        "registry_auth": task.registry_auth,
        "home_dir": task.home_dir,
    }
    for name, value in only.items():
        if value is not None:
            message = f"`{name}` needs a container, and the run is a process of {offer.backend}"
            hint = f"remove `{name}`" + ("" if name == "image" else ", or add `image`")
            raise CannotStart(message, hint=hint)


def make_plan(
    task: Task,
    settings: Settings,
    place: Place,
    offer: Offer,
    python: tuple[str, str | None],
) -> Plan:
    """The plan of a task on a backend.

    `settings` are resolved (command line, file, profile, defaults); `python` is the version and
    the interpreter's path on the host (None: uv fetches it; where the engine runs containers, the
    version is for the base image). Raises CannotStart, NoCapacity.
    """
    image = task.image
    if offer.containers and image is None:
        image = offer.base_image.replace("{python}", python[0])
    _check_container_only(task, offer)
    if settings.spot_policy == "spot":
        message = f"the run asks for a spot machine; {offer.backend} has none"
        raise NoCapacity(message, hint="use --on-demand or --spot-auto")
    asked = settings.resources
    check_resources(asked, offer)
    return Plan(
        name=task.name or "",
        project=place.project,
        workdir=place.workdir,
        file=place.file,
        backend=offer.backend,
        engine=offer.engine,
        commands=task.commands,
        setup=task.setup,
        env=task.env,
        ports=task.ports,
        python=None if image is not None else python[0],
        interpreter=python[1],
        image=image,
        entrypoint=task.entrypoint,
        registry_auth=task.registry_auth,
        home_dir=task.home_dir,
        pull=task.pull,
        client=offer.client,
        gpus=fitting_gpus(asked.gpu, offer) if asked.gpu is not None else (),
        gpu_count=_gpu_count(asked.gpu),
        cache=task.cache,
        cache_key=place.cache_key,
        resources=asked,
        enforce=offer.limits,
        max_duration=settings.max_duration or None,
        retry=settings.retry if settings.retry is not None and settings.retry.on_events else None,
        base_env=tuple(place.base_env.items()),
        build=task.build,
    )


def build_plan(plan: Plan, name: str) -> Plan:
    """The plan of the build stage that `plan` would start from: its commands are `build`."""
    return msgspec.structs.replace(
        plan,
        name=name,
        commands=plan.build,
        setup=(),
        build=(),
        ports=(),
        retry=None,  # what a failed attempt left is no place to begin a build
        stage="build",
    )
