"""Start and stop what the container tests stand on: `python -m tests.engines.services start`.

One Docker daemon, Podman's settings, and two registries, with the test images in all of them.
Everything lives in one folder outside the checkout; it is a cache, and may be deleted when
stopped. Several may use it at once: `start PID` is undone by `stop PID`, or by the process's end,
and the last `stop` ends the services. `stop` alone ends them in any case; `env` prints what leads
a shell's `docker` and `podman` to them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.engines import images, layers, machine
from tests.engines.daemon import Daemon
from tests.engines.engine import NETNS, PREFIX, Engine
from tests.engines.podman import Podman
from tests.engines.registry import Registry

PARENT = Path("/var/tmp")
NAME = "dstack-test-engines-"


def fingerprint() -> str:
    """What the images are made from, in eight digits."""
    digest = hashlib.sha256()
    for module in (images, layers):
        digest.update(Path(module.__file__ or "").read_bytes())
    for source in (layers.busybox(), Path(python()).resolve()):
        digest.update(f"{source} {source.stat().st_size} {source.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:8]


def python() -> str:
    """The interpreter for the images: the one that the tests' environment was made from."""
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")


class Services:
    """All of them, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemon = Daemon(folder / "d", filter_rules=True)
        self.podman = Podman(folder / "p")
        self.open = Registry(folder / "open")
        self.private = Registry(folder / "private", private=True)
        self.engines = {
            "docker": Engine("docker", {"DOCKER_HOST": self.daemon.host}, self.daemon.folder),
            "podman": Engine("podman", self.podman.env, self.podman.folder),
        }

    @property
    def state_file(self) -> Path:
        return self.folder / "state.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the folder."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def state(self) -> dict[str, Any]:
        """What was written at the last start; empty when stopped."""
        try:
            found: dict[str, Any] = json.loads(self.state_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return found

    def users(self) -> dict[str, str]:
        """Who uses them and still lives: PID to start time; PID 0 is a start by hand."""
        known: dict[str, str] = self.state().get("users", {})
        return {p: s for p, s in known.items() if p == "0" or machine.start_time(int(p)) == s}

    def start(self, user: int = 0) -> dict[str, Any]:
        """Start what does not run yet, for process `user` (0: until `stop`); the new state."""
        if os.geteuid() != 0:
            raise SystemExit("the engines for the tests are started as root")
        with self.locked():
            users = self.users()
            if not users or not self.healthy():
                self._stop()
                self._start()
            users[str(user)] = machine.start_time(user) if user else ""
            return self._save({**self.state(), "users": users})

    def stop(self, user: int | None = None) -> None:
        """Stop them for `user`; without one, or when nobody else is left, for good."""
        with self.locked():
            users = {p: s for p, s in self.users().items() if p != str(user)}
            if user is None or not users:
                self._stop()
            else:
                self._save({**self.state(), "users": users})

    def healthy(self) -> bool:
        """Whether all that was started still answers."""
        state = self.state()
        if not state:
            return False
        self.open.port, self.private.port = (state["ports"][name] for name in ("open", "private"))
        registries = self.open.answers() and self.private.answers()
        return registries and ("docker" not in state["engines"] or self.daemon.answers())

    def _start(self) -> None:
        there = [name for name, engine in self.engines.items() if engine.installed]
        before = {
            "chains": machine.PacketFilter.chains(),
            "policy": machine.PacketFilter.forward_policy(),
        }
        # Before anything runs: whoever comes after a kill must know what to put back.
        self._save(
            {
                "filter": before,
                "engines": there,
                "ports": {"open": 0, "private": 0},
                "netns": bool(machine.mounts(NETNS)),
            }
        )
        if "docker" in there:
            # Another daemon's chains are its own; two would empty each other's.
            self.daemon.filter_rules = not any(c.startswith("DOCKER") for c in before["chains"])
            self.daemon.start()
        self.podman.configure([])
        for name in there:
            remove_others(self.engines[name])
        self._load(there)
        self._seed(there)
        for registry in (self.open, self.private):
            registry.fill(self.folder / "seed")
            registry.start()
        self.podman.configure([self.open.address, self.private.address])
        ports = {"open": self.open.port, "private": self.private.port}
        self._save({**self.state(), "ports": ports})

    def _stop(self) -> None:
        state = self.state()
        for registry in (self.open, self.private, Registry(self.folder / "seed.new")):
            registry.stop()
        self.podman.clean()
        if (self.folder / "d").exists():
            self.daemon.stop()
        if before := state.get("filter"):
            bridges = [self.daemon.name, self.podman.bridge]
            machine.PacketFilter.clean(before["chains"], before["policy"], bridges)
        if not state.get("netns", True) and NETNS.is_dir() and not any(NETNS.iterdir()):
            machine.quietly("umount", NETNS)
        self.state_file.unlink(missing_ok=True)

    def _load(self, there: list[str]) -> None:
        """Bring the images into the engines that lack one."""
        needed = {name: map(self.engines[name].image, images.IMAGES) for name in there}
        lacking = [name for name in there if not self.engines[name].holds(*needed[name])]
        if not lacking:
            return
        with images.layers_for(python(), self.folder) as made:
            for name in lacking:
                archive = self.folder / "images.tar"
                images.write_archive(archive, made, PREFIX[name])
                self.engines[name].cli("load", "--input", archive)
                archive.unlink()

    def _seed(self, there: list[str]) -> None:
        """What both registries hold in the beginning, pushed once and kept."""
        seed = self.folder / "seed"
        if seed.exists() or not there:
            return
        shutil.rmtree(self.folder / "seed.new", ignore_errors=True)
        registry = Registry(self.folder / "seed.new")
        registry.start()
        self.podman.configure([registry.address])
        engine = self.engines[there[0]]
        for name in images.IMAGES:
            target = f"{registry.address}/dstack-test/{name}:latest"
            engine.cli("tag", engine.image(name), target)
            engine.cli("push", target)
            engine.cli("rmi", target)
        registry.stop()
        registry.folder.rename(seed)

    def _save(self, state: dict[str, Any]) -> dict[str, Any]:
        aside = self.state_file.with_suffix(".new")
        aside.write_text(json.dumps(state))
        aside.replace(self.state_file)
        return state

    def env(self) -> dict[str, str]:
        """What leads a client to these engines."""
        return {key: value for engine in self.engines.values() for key, value in engine.env.items()}


def remove_others(engine: Engine) -> None:
    """Remove containers and images that earlier tests have left."""
    if containers := engine.cli("ps", "--all", "--quiet").split():
        engine.remove(*containers)
    kept = {engine.image(name) for name in images.IMAGES}
    for line in engine.cli(
        "image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"
    ).splitlines():
        reference, identity = line.split()
        if reference not in kept:
            engine.run("rmi", "--force", identity if "<none>" in reference else reference)


def here() -> Services:
    """The services for this checkout's images, whether they run or not."""
    return Services(PARENT / f"{NAME}{fingerprint()}")


def remove_outdated() -> None:
    """Delete the folders of other images that nobody uses."""
    current = here().folder
    for folder in PARENT.glob(f"{NAME}*"):
        other = Services(folder)
        if folder == current or other.users().keys() - {"0"}:
            continue
        other.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: list[str]) -> None:
    """`start [PID]`, `stop [PID]` or `env`."""
    action, *rest = arguments or [""]
    services = here()
    if action == "start":
        remove_outdated()
        services.start(*map(int, rest))
    elif action == "stop":
        if services.state_file.exists():
            services.stop(*map(int, rest))
    elif action != "env":
        raise SystemExit(__doc__)
    if action != "stop":
        for key, value in services.env().items():
            print(f"export {key}={shlex.quote(value)}")


if __name__ == "__main__":
    main(sys.argv[1:])
