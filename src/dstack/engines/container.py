"""The engine of containers: Docker or Podman, through its own command."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ..config.shapes import Part, Secret, Text
from ..digest import digest
from ..errors import HostError
from ..hosts.base import Content, File, Host
from ..paths import Home
from ..run.model import Exit, Plan, Run
from ..run.observation import Observation, Preparing, Running, Unknown
from .base import Facts, Job, Reach
from .clients import CLIENTS, DOCKER, Client, credentials, explain, explain_commit
from .container_script import Inside, build_image, container_name, keys, render_box, render_job
from .folder import FolderEngine, describe_job, gpu_part, job_files, part
from .render import Places, needed

_TIMEOUT = 30.0  # seconds for what the engine answers from memory
_REMOVE_TIMEOUT = 300.0
_IN_BOX = frozenset({"phase", "env", "box.sh"})


class _Network(msgspec.Struct, frozen=True):
    """A container's first process and its id, and its network: the mode, and settings as JSON."""

    first: tuple[int, str]
    mode: str
    settings: bytes


class ContainerEngine(FolderEngine):
    """Runs jobs in containers of one engine, which has to be on the same machine."""

    shown = ("box/phase", "box/running", "unknown", "image", "pull")
    client: Client

    def __init__(self, home: Home, host: Host | None = None, **options: object) -> None:
        super().__init__(home, host, **options)  # type: ignore[arg-type]  # handed on as they are
        self.name = self.client.name
        self._networks: dict[Path, _Network] = {}

    def facts(self, *, pythons: bool = False, limits: bool = False) -> Facts:
        """See Engine. The engine itself sees to limits."""
        from .facts import find_facts

        facts = find_facts(self.host, self.home, pythons=False, limits=False, gpus=limits)
        return msgspec.structs.replace(facts, limits=True)

    def plan(self, run: Run, run_folder: Path, attempt: int) -> Job:
        """See Engine. `run_folder` need not exist."""
        folder = f"{run_folder}/{attempt}"
        places = Places(
            run=os.fspath(run_folder),
            job=folder,
            cache=os.fspath(self.home.cache),
            envs="",
            uv="",
            builds=os.fspath(self.home.builds),
            gpus=os.fspath(self.home.gpus),
            guard=os.fspath(self.home.guard),
        )
        inside = Inside(
            client=self.client,
            label=self.label(),
            images=os.fspath(self.home.images),
            body=gpu_part(run.plan) + self.body(),
            box=part("box.sh"),
        )
        files = {"job.json": describe_job(run, attempt), "box.sh": render_box(run, attempt, inside)}
        if run.plan.pull == "missing":
            image = run.plan.image if run.build is None else build_image(run.build)
            asked = (run.plan.client, image, dict(run.plan.base_env))
            files["lookup"] = msgspec.json.encode(asked).decode()
        auth = run.plan.registry_auth
        if auth is not None:
            files["auth"] = msgspec.json.encode((run.plan.image, auth)).decode()
        return Job(
            name=f"{run.id}-{attempt}",
            directory=folder,
            script=render_job(run, attempt, places, inside),
            needs=needed(run.plan.env),
            keys=keys(run.plan),
            files=files,
        )

    def label(self) -> str:
        """What marks the containers of this dstack folder."""
        return digest(os.fsencode(self.home.root))[:12]

    def body(self) -> str:
        """See FolderEngine."""
        return "\n".join(map(part, ("build.sh", "container.sh", "guard.sh", "marked.sh", "job.sh")))

    def put(self, job: Job, values: Mapping[str, str]) -> None:
        """See FolderEngine. What the container sees lies in a folder of its own."""
        folder = Path(job.directory)
        files = job_files(job, values)
        auth = files.pop("auth", None)
        box = {name: files.pop(name) for name in _IN_BOX & files.keys()}
        box["state"] = File(b" " * 20 + b"\n", keep=True)
        lookup = files.pop("lookup", None)
        if lookup is not None:
            files.update(self._look_ahead(lookup.data, box))
        self.host.put(folder, {"log": File(b"", keep=True)})
        self.host.put(folder / "box", box)
        if auth is not None:
            self.host.put(folder / "auth", {"config.json": self._auth(auth.data, values)})
        self.host.put(folder, files)

    def _look_ahead(self, lookup: bytes, box: dict[str, File]) -> dict[str, File]:
        """Ask about the image here, where that is cheaper than in job.sh."""
        client, image, environ = msgspec.json.decode(lookup, type=tuple[str, str, dict[str, str]])
        if self.client is not DOCKER:
            facts = self._podman_facts(client, image, environ)
            if facts is not None:
                box["image"] = File(os.fsencode(facts))
            return {}
        from .docker_socket import look_up

        found = look_up(image, environ, self.host)
        if found is None:
            return {}
        box["image"] = File(os.fsencode(found.facts))
        return {} if found.lasting else {"passing": File(b"")}

    def _podman_facts(self, client: str, image: str, environ: dict[str, str]) -> str | None:
        from .podman_store import look_up

        if not self.host.near:
            return None
        return look_up(self.host, self.home.images, client, image, environ)

    def _auth(self, reference: bytes, values: Mapping[str, str]) -> File:
        from ..config.shapes import RegistryAuth

        image, auth = msgspec.json.decode(reference, type=tuple[str, RegistryAuth])
        name, password = (_resolved(parts, values) for parts in (auth.username, auth.password))
        return File(credentials(self.client, image, name, password).encode())

    def under_way(
        self, directory: Path, keeper: str | None, shown: Sequence[Content | None]
    ) -> Observation:
        """See FolderEngine. What the engine does not tell is unknown."""
        stage, running, unknown, image, pull = shown
        if unknown is not None:
            return Unknown(_explained(self.client, "", unknown))
        if running is not None:
            return Running(keeper, running.at, image_id=_image_id(image))
        words = stage.data.split() if stage else []
        if words[:2] == [b"environment", b"1"]:
            return Preparing(_pulling(pull), keeper)
        return Preparing("setup" if words[:1] == [b"setup"] else "environment", keeper)

    def ended(self, directory: Path, end: Exit) -> Exit:
        """See FolderEngine."""
        try:
            image, about = self.host.read_many([directory / "image", directory / "job.json"])
        except HostError:
            image, about = None, None
        detail = end.detail
        if detail is not None and detail.startswith("@"):
            (said,) = self.host.read_many([directory / detail[1:]])
            name, known = _described(about)
            text = said.data.decode("utf-8", "replace") if said else ""
            if detail == "@commit":
                detail = explain_commit(self.client, text)
            else:
                detail = explain(self.client, name, text, known=known)
        return msgspec.structs.replace(end, detail=detail, image_id=_image_id(image))

    def address(self, directory: Path, port: int) -> Reach:
        """See Engine: the container's own address where its host has a network with it."""
        from .addresses import find_address
        from .reach import NOWHERE, of_container, of_shared

        if directory not in self._networks:
            found = self._ask_network(directory)
            if found is None:
                return NOWHERE
            self._networks[directory] = found
        network = self._networks[directory]
        if network.mode == "host":  # the user's own default: we ask for none
            return of_shared(self.host, self.shell, network.first, port)
        address = find_address(network.settings, port)
        if address is None:
            return NOWHERE
        return of_container(self.host, self.shell, network.first, address, port)

    def _ask_network(self, directory: Path) -> _Network | None:
        """What the engine says of a container that runs, which stays so; None: not now."""
        (running,) = self.host.read_many([directory / "box" / "running"])
        if running is None:
            return None
        name = container_name(f"{directory.parent.name}-{directory.name}")
        form = "{{.Id}} {{.State.Pid}} {{.HostConfig.NetworkMode}} {{json .NetworkSettings}}"
        said = self._ask(directory, ["container", "inspect", "--format", form, name])
        words = said.split(b" ", 3) if said else []
        if len(words) != 4 or not words[1].isdigit():
            return None
        return _Network((int(words[1]), os.fsdecode(words[0])), os.fsdecode(words[2]), words[3])

    def _ask(self, directory: Path, words: Sequence[str]) -> bytes | None:
        """What the client of a job says; None when it fails."""
        argv = [*self.shell, f"{directory}/job.sh", "client", *words]
        done = self.host.run(argv, timeout=_TIMEOUT)
        return done.out if done.code == 0 else None

    def end_lost(self, directory: Path) -> None:
        """See FolderEngine."""
        from .process import process_body

        name = container_name(f"{directory.parent.name}-{directory.name}")
        try:
            self.host.run([self.client.name, *self.client.remove, name], timeout=_TIMEOUT)
        except HostError:
            pass  # the next look does it again, or nothing can be done
        # What is left then is processes of this machine: the keeper and its timer.
        self.end_marked(directory, process_body())

    def base(self, directory: Path) -> str:
        """See Engine."""
        (image,) = self.host.read_many([directory / "image"])
        return image.data.split()[0].decode() if image and image.data.split() else ""

    def find_base(self, plan: Plan) -> str:
        """See Engine."""
        image, environ = plan.image or "", dict(plan.base_env)
        if self.client is DOCKER:
            from .docker_socket import look_up_id

            if found := look_up_id(image, environ, self.host):
                return found
        elif facts := self._podman_facts(plan.client, image, environ):
            from .podman_store import image_id

            return image_id(facts)
        argv = [plan.client, "image", "inspect", "--format", "{{.Id}}", image]
        done = self.host.run(argv, env=self._with(environ), timeout=_TIMEOUT)
        return done.out.decode("utf-8", "replace").strip() if done.code == 0 else ""

    def build_image(self, directory: Path) -> tuple[str, int] | None:
        """See Engine."""
        (built,) = self.host.read_many([directory / "built"])
        words = built.data.decode("utf-8", "replace").split() if built else []
        return (words[0], max(int(words[1]), 0)) if len(words) == 2 else None

    def discard_image(self, image: str, client: str, environ: Mapping[str, str]) -> None:
        """See Engine."""
        argv = [client, "image", "rm", image]
        done = self.host.run(argv, env=self._with(environ), timeout=_REMOVE_TIMEOUT)
        said = done.err.decode("utf-8", "replace").strip()
        if done.code != 0 and "no such image" not in said.lower() and "not known" not in said:
            message = f"the image {image} cannot be deleted: {said}"
            raise HostError(message)

    def take_back(self, run_folder: Path, directory: Path) -> None:
        """See Engine."""
        if self.host.uid != 0:
            self._take_back(run_folder, directory)

    def delete(self, run_folder: Path, attempts: Sequence[Path]) -> None:
        """See FolderEngine. What the container's users wrote may take its root to delete."""
        try:
            self.host.delete(run_folder)
        except HostError:
            if not attempts:
                raise
            self._take_back(run_folder, attempts[-1])
            self.host.delete(run_folder)

    def _with(self, environ: Mapping[str, str]) -> dict[str, str]:
        return {**self.host.environ, **environ}

    def _take_back(self, run_folder: Path, directory: Path) -> None:
        (about,) = self.host.read_many([directory / "job.json"])
        image, _ = _described(about)
        mount = f"type=bind,source={run_folder},target=/.dstack/run"
        options = ["--rm", "--network", "none", "--pull", "never", "--user", "0:0"]
        # The group of files in dstack's folder is nobody's concern: it is the user's alone.
        words = ["chown", "-R", str(self.host.uid), "/.dstack/run"]
        argv = ["run", *options, "--security-opt", "label=disable", "--mount", mount]
        argv = [*argv, "--entrypoint", words[0], image, *words[1:]]
        self.host.run(
            [*self.shell, f"{directory}/job.sh", "client", *argv], timeout=_REMOVE_TIMEOUT
        )


class DockerEngine(ContainerEngine):
    """Docker Engine, and whatever else answers the `docker` command."""

    client = CLIENTS["docker"]


class PodmanEngine(ContainerEngine):
    """Podman."""

    client = CLIENTS["podman"]


def _resolved(parts: Sequence[Part], values: Mapping[str, str]) -> str:
    texts = []
    for each in parts:
        if isinstance(each, Text):
            texts.append(each.text)
        elif isinstance(each, Secret):
            texts.append(values[f"secret:{each.name}"])
    return "".join(texts)


def _described(about: Content | None) -> tuple[str, bool]:
    """The image's name, and whether there are credentials for it."""
    try:
        found = msgspec.json.decode(about.data if about else b"{}")
    except msgspec.DecodeError:
        found = {}
    return str(found.get("image", "the image")), bool(found.get("registry_auth"))


def _image_id(image: Content | None) -> str | None:
    """The digest that the registry knows it by, else its id."""
    words = image.data.decode("utf-8", "replace").split() if image else []
    if len(words) != 2:
        return None
    return words[0] if words[1] == "-" else words[1]


def _explained(client: Client, image: str, said: Content) -> str:
    return explain(client, image, said.data.decode("utf-8", "replace"), known=False)


def _pulling(said: Content | None) -> str:
    from .progress import layers

    done, total = layers(said.data.decode("utf-8", "replace") if said else "")
    return f"pulling {done}/{total}"
