"""A real engine, real processes; whatever a test leaves behind fails it."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from dstack.config.backends import Backend, EngineChoice
from dstack.config.shapes import EnvVar, Text
from dstack.engines import get_engine
from dstack.engines.base import Job
from dstack.engines.choice import choose_engine
from dstack.engines.folder import FolderEngine
from dstack.engines.process import ProcessEngine
from dstack.hosts.base import Host
from dstack.hosts.ssh import SshHost
from dstack.hosts.ssh_options import SshOptions
from dstack.paths import Home
from dstack.run.model import Exit, Plan, Run
from dstack.run.observation import Exited, Observation, Running
from tests.engines.engine import Engine
from tests.engines.fixtures import held, services
from tests.engines.services import Services
from tests.hosts.loopback import ALIAS, loopback

DEADLINE = 60.0  # seconds; generous, for a loaded machine

FAR = "over ssh"
SHELLS = {"dash": ("/usr/bin/dash",), "busybox": ("/usr/bin/busybox", "sh"), "bash": ("/bin/bash",)}
# Where a run can be: the keeper's shell, or the engine; here or over ssh.
PROCESSES = (*SHELLS, FAR)
CONTAINERS = ("docker", "podman", f"docker {FAR}", f"podman {FAR}")
ANY_BENCH = (*PROCESSES, *CONTAINERS)


def on_any_bench(names: str, first: Any, *others: Any) -> pytest.MarkDecorator:
    """Parametrize: `first` on each bench, each of the `others` on one of either kind, in turn.

    For what the shell of the commands decides alone. That is one shell for all processes, and one
    for all containers of an image; the benches differ in what tells of it, and for that one case is
    as good as another.
    """
    cases = [(bench, first) for bench in ANY_BENCH]
    for number, case in enumerate(others):
        cases += [(kind[number % len(kind)], case) for kind in (PROCESSES, CONTAINERS)]
    split = "," in names
    return pytest.mark.parametrize(
        f"any_bench, {names}",
        [(bench, *case) if split else (bench, case) for bench, case in cases],
        indirect=["any_bench"],
    )


class OneShell(ProcessEngine):
    """Everything of the keeper's in one shell, whatever else this machine has."""

    def body(self) -> str:
        body = super().body().replace("/bin/busybox /usr/bin/busybox", "/nowhere")
        return body.replace("/bin/sh", " ".join(self.shell))


class WithoutCgroups(OneShell):
    """As on a machine whose control groups are not ours to use."""

    def plan(self, run: Run, run_folder: Path, attempt: int) -> Job:
        job = super().plan(run, run_folder, attempt)
        script = job.script.replace("job_cgroup_root='/sys/fs/cgroup'", "job_cgroup_root='/none'")
        assert script != job.script
        return msgspec.structs.replace(job, script=script)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Whatever the condition gives once it is true."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    pytest.fail(f"waited {DEADLINE:g} s in vain for {what}")


def marked(name: str) -> list[int]:
    """The processes whose environment carries the job's mark."""
    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if f"DSTACK_JOB=:{name}:".encode() in environ:
            found.append(int(pid))
    return found


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def cgroups(name: str) -> list[Path]:
    """The control groups of a job."""
    # Others come and go meanwhile; os.walk() does not mind, and glob() does.
    places = os.walk("/sys/fs/cgroup")
    return [
        Path(folder, f"dstack-{name}") for folder, names, _ in places if f"dstack-{name}" in names
    ]


__all__ = ["services"]


class Bench:
    """Starts jobs on one engine and looks at them."""

    def __init__(self, engine: FolderEngine, **plan: Any) -> None:
        """`plan` are properties that every run of this bench has."""
        self.engine = engine
        self.defaults = plan
        self.home = engine.home
        self.names: list[str] = []
        self._count = 0

    def run(self, *commands: str, attempt: int = 1, run_id: str | None = None, **plan: Any) -> Run:
        self._count += 1
        run_id = run_id or f"t{os.getpid()}x{id(self) % 10**6}x{self._count}"
        env = plan.pop("env", ())
        if isinstance(env, Mapping):
            env = tuple(EnvVar(name, (Text(value),)) for name, value in env.items())
        plan = {**self.defaults, **plan}
        plan.setdefault("base_env", (("PATH", os.environ["PATH"]), ("HOME", str(self.home.root))))
        (self.home.run(run_id) / "code" / plan.get("workdir", ".")).mkdir(
            parents=True, exist_ok=True
        )
        full = Plan(
            name="brave-fox",
            project="/project",
            workdir=plan.pop("workdir", "."),
            file=".dstack.yml",
            backend="local",
            engine=self.engine.name,
            commands=commands,
            env=env,
            **plan,
        )
        self.names.append(f"{run_id}-{attempt}")
        return Run(id=run_id, name="brave-fox", plan=full, status="submitted", submitted_at=0.0)

    def start(
        self, *commands: str, values: Mapping[str, str] | None = None, attempt: int = 1, **plan: Any
    ) -> Path:
        run = self.run(*commands, attempt=attempt, **plan)
        job = self.engine.plan(run, self.home.run(run.id), attempt)
        self.engine.start(job, values or {})
        return Path(job.directory)

    def poll(self, directory: Path) -> Observation:
        return self.engine.poll([directory])[directory]

    def ended(self, directory: Path) -> Exit:
        def look() -> Exit | None:
            seen = self.poll(directory)
            return seen.exit if isinstance(seen, Exited) else None

        found: Exit = wait_for(look, f"the end of {directory}: {self.log(directory)!r}")
        return found

    def running(self, directory: Path) -> int:
        """Wait until the commands run; the keeper's pid."""

        def look() -> int | None:
            seen = self.poll(directory)
            assert not isinstance(seen, Exited), (seen, self.log(directory))
            keeper = seen.keeper if isinstance(seen, Running) else None
            return int(keeper.partition(":")[0]) if keeper else None

        pid: int = wait_for(look, "the commands to run")
        return pid

    def do(self, *commands: str, **options: Any) -> tuple[Exit, str]:
        """Run to the end: the exit and the output."""
        directory = self.start(*commands, **options)
        return self.ended(directory), self.log(directory)

    def log(self, directory: Path) -> str:
        try:
            return (directory / "log").read_text()
        except OSError:
            return ""

    def number(self, path: Path) -> int:
        """A pid that a job writes into a file."""

        def look() -> int | None:
            try:
                text = path.read_text()
            except OSError:
                return None
            return int(text) if text.endswith("\n") else None

        found: int = wait_for(look, f"a pid in {path}")
        return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def ssh_bin() -> Iterator[Path]:
    """Where the `ssh` lies that reaches this machine."""
    if os.geteuid() != 0 or not os.access("/usr/sbin/sshd", os.X_OK):
        pytest.skip("sshd is missing, or this is not root: apt-get install openssh-server")
    with loopback() as folder:
        yield folder


@pytest.fixture
def far(home: Home, ssh_bin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """This machine, over `ssh`: engines must not be able to tell."""
    monkeypatch.setenv("PATH", f"{ssh_bin}:{os.environ['PATH']}")
    options = SshOptions(ALIAS, root=str(home.root))
    host = SshHost(ALIAS, options, home.root.parent / "state")
    yield host
    host.disconnect()


@pytest.fixture(params=PROCESSES)
def bench(request: pytest.FixtureRequest, home: Home) -> Iterator[Bench]:
    """Every test is done with each shell as the keeper's, and over `ssh`."""
    found = Bench(of_processes(request, home))
    yield found
    finish(found)


def of_processes(request: pytest.FixtureRequest, home: Home) -> ProcessEngine:
    """The engine for processes with the keeper's shell, or the way, that the test is given."""
    if request.param == FAR:
        return ProcessEngine(home, request.getfixturevalue("far"), grace=3)
    return OneShell(home, shell=SHELLS[request.param], grace=3)


def twin(engine: FolderEngine) -> FolderEngine:
    """The same engine as another process has it: with a host of its own."""
    found = copy.copy(engine)
    if isinstance(engine.host, SshHost):
        found.host = SshHost(ALIAS, engine.host.options, engine.home.root.parent / "state")
    return found


def in_containers(engine: Engine, home: Home, host: Host | None = None, **plan: Any) -> Bench:
    """A bench whose runs are containers of a real engine."""
    choice = choose_engine(Backend(engine=cast(EngineChoice, engine.name)), image=True)
    made = get_engine(engine.name, home, host)
    assert isinstance(made, FolderEngine)
    made.grace = 3
    env = {"PATH": os.environ["PATH"], "HOME": str(home.root), **choice.environment}
    plan.setdefault("image", engine.image("python"))
    return Bench(made, client=choice.client, base_env=tuple(env.items()), **plan)


@pytest.fixture(params=ANY_BENCH)
def any_bench(request: pytest.FixtureRequest, home: Home) -> Iterator[Bench]:
    """For what holds wherever a run is: each shell as a process's keeper, each container engine.

    And over `ssh`.
    """
    engine, _, far = request.param.partition(" ")
    if engine in {"docker", "podman"}:
        host: Host | None = request.getfixturevalue("far") if far else None
        found = in_containers(request.getfixturevalue(engine), home, host)
    else:
        found = Bench(of_processes(request, home))
    yield found
    finish(found)


@pytest.fixture
def docker(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Docker, shared with other tests."""
    with held(services, "docker", monkeypatch) as engine:
        yield engine


@pytest.fixture
def podman(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Podman, shared with other tests."""
    with held(services, "podman", monkeypatch) as engine:
        yield engine


@pytest.fixture
def quick(home: Home) -> Iterator[Bench]:
    """For what does not depend on the keeper's shell."""
    found = Bench(ProcessEngine(home, grace=3))
    yield found
    finish(found)


def finish(bench: Bench) -> None:
    """End what a failed test left, and fail on any process or cgroup that is left of a good one."""
    if bench.home.runs.exists():
        for folder in list(bench.home.runs.iterdir()):
            errors = [f.read_text() for f in folder.glob("*/keeper.log")]
            assert not any(errors), errors
            bench.engine.remove(folder)
    # The keeper drops its cgroups after it wrote `exit`.
    wait_for(lambda: not any(marked(name) for name in bench.names), "every process to be gone")
    wait_for(lambda: not any(map(cgroups, bench.names)), "every cgroup to be gone")
