"""Runs on another machine, beside what `ssh`, `rsync` and `ssh -L` take for the same.

The machines are real sshds in namespaces of this one (tests/hosts): the network costs next to
nothing, so that what is measured is ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Context, Row, at_hand, side_by_side
from dstack.hosts.ssh import SshHost
from dstack.hosts.ssh_master import socket_folder
from dstack.hosts.ssh_options import SshOptions
from dstack.paths import Home
from dstack.snapshot import Snapshots
from tests.hosts.client import Client
from tests.hosts.host import Host
from tests.hosts.services import Hosts

_DELAY = 0.2  # seconds of a round trip, to count them
_OUTPUT = 1_000_000_000  # bytes
_PAGE = 256_000_000
_RUNS = 50
_WATCHED = 75.0  # seconds: more than lie between two looks at all runs
_BACKENDS = "backends:\n" + "".join(
    f"  - {{name: {name}, type: ssh, host: {name}}}\n" for name in ("alpha", "nogit", "boxes")
)


class Bench:
    """The command, a folder to run, and the user's own ssh."""

    def __init__(self, context: Context, client: Client, hosts: Hosts) -> None:
        self.context = context
        self.hosts = hosts
        self.alpha: Host = hosts.all["alpha"]
        self.home = context.folder("ssh-home")
        self.home.chmod(0o700)
        (self.home / "config.yml").write_text(_BACKENDS)
        self.env = {**context.env(self.home), **client.env()}
        os.environ.update(client.env())
        self.project = context.folder("ssh-project")
        control = context.scratch / "cm-%C"
        options = ("ControlMaster=auto", f"ControlPath={control}", "ControlPersist=300")
        self.ssh = ["ssh", *(word for option in options for word in ("-o", option)), "alpha"]

    def task(self, text: str) -> None:
        """Make it the task that is run."""
        (self.project / ".dstack.yml").write_text(f"type: task\n{text}\n")

    def run(self, *args: str, stdout: int = subprocess.DEVNULL) -> None:
        """Run the task on the host alpha."""
        self.call([self.context.binary, "run", ".", "--backend", "alpha", *args], stdout)

    def call(self, argv: list[str], stdout: int = subprocess.DEVNULL) -> None:
        """Run a command, which must succeed."""
        subprocess.run(
            argv,
            cwd=self.project,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=True,
        )

    def end_connections(self) -> None:
        """So that the next command has to make one."""
        for folder in (Path(socket_folder(self.home)), self.context.scratch):
            for path in folder.iterdir():
                if path.is_socket():
                    argv = ["ssh", "-o", f"ControlPath={path}", "-O", "exit", "none"]
                    subprocess.run(argv, env=self.env, capture_output=True, check=False)


def measure(context: Context) -> Iterable[Row]:
    """Start, send, forward, print and watch."""
    hosts = Hosts(os.getpid())
    hosts.start()
    try:
        client = hosts.client(context.scratch / "ssh-client")
        bench = Bench(context, client, hosts)
        yield from _starts(bench)
        yield from _sending(bench)
        yield from _output(bench)
        yield from _port(bench)
        yield from _watching(bench)
        bench.end_connections()
    finally:
        hosts.stop()


def _starts(bench: Bench) -> Iterator[Row]:
    bench.task("commands: [echo hi]")
    bench.run()

    def plain() -> None:
        bench.call([*bench.ssh, "true"])

    plain()
    ours, theirs = turns(bench.run, plain, 7)
    yield Row("run echo hi there, warm: more than ssh true", _ms(ours - theirs), None, "ms", 250)
    bench.alpha.link.slow(_DELAY)
    try:
        far, plain_far = turns(bench.run, plain, 3)
    finally:
        bench.alpha.link.heal()
    trips = ((far - plain_far) - (ours - theirs)) / _DELAY
    yield Row("... round trips more, at 200 ms each", round(trips, 1), None, "", 3.4)
    cold = side_by_side(lambda: _cold(bench, bench.run), lambda: _cold(bench, plain), rounds=3)
    yield Row("cold: more than ssh true", _ms(cold[0] - cold[1]), None, "ms", 400)


def _cold(bench: Bench, act: Callable[[], None]) -> float:
    bench.end_connections()
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def _sending(bench: Bench) -> Iterator[Row]:
    if shutil.which("rsync") is None:
        message = "this bench compares with rsync: install it"
        raise RuntimeError(message)
    project = bench.context.folder("ssh-many")
    for n in range(10_000):
        folder = project / f"d{n % 100}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{n}").write_text(f"{n}\n" * 20)
    home = Home(bench.context.folder("ssh-store"))
    snapshots = Snapshots(home)
    host = SshHost("alpha", SshOptions("alpha"), bench.home)
    count = 0

    def send() -> None:
        nonlocal count
        count += 1
        (project / "d7" / "f7").write_text(f"changed {count}\n")
        pending = snapshots.begin(project)
        tree = pending.finish().tree
        target = host.root / "runs" / f"bench{count}" / "code"
        with host.batch():
            snapshots.send(project, tree, host, (host.root / "code", target), fresh=True)
        pending.cancel()

    def spare() -> None:
        """The run's copy is made in advance, while nobody waits."""
        wanted = "until [ -s $kept/spare.tree ]; do sleep 0.2; done"
        bench.call([*bench.ssh, f"for kept in ~/.dstack/code/*; do {wanted}; done"])

    def rsync() -> None:
        (project / "d8" / "f8").write_text(f"changed {time.monotonic()}\n")
        shell = " ".join(bench.ssh[:-1])
        bench.call(["rsync", "-a", "-e", shell, f"{project}/", "alpha:rsynced/"])

    try:
        send()
        rsync()
        ours, theirs = turns(send, rsync, 5, before=spare)
    finally:
        host.disconnect()
    yield Row("send 10,000 files, one changed, as rsync -a", _ms(ours), _ms(theirs), "ms", 1.0)


def _output(bench: Bench) -> Iterator[Row]:
    command = f"head -c {_OUTPUT} /dev/zero"
    bench.task(f"commands: [{command}]")
    target = bench.context.scratch / "ssh-output"

    def into_file(act: Callable[[int], None]) -> None:
        with target.open("wb") as file:
            act(file.fileno())
        if target.stat().st_size != _OUTPUT:
            raise RuntimeError(f"{target.stat().st_size} bytes came")

    def plain(*options: str) -> None:
        into_file(lambda fd: bench.call([*bench.ssh[:-1], *options, "alpha", command], fd))

    # The first connection learns what the host computes fast.
    bench.end_connections()
    ours, theirs = turns(
        lambda: into_file(lambda fd: bench.run(stdout=fd)), plain, 3, before=at_hand
    )
    same = ("-o", "ControlPath=none", "-c", "aes256-gcm@openssh.com")
    fastest = turns(lambda: plain(*same), lambda: None, 3, before=at_hand)[0]
    target.unlink()
    bench.call([bench.context.binary, "rm", "-a", "-y"])
    rate = _OUTPUT / 1e6
    yield Row("1 GB of output, as ssh HOST CMD", rate / ours, rate / theirs, "MB/s", 0.9, True)
    yield Row("... as ssh -c aes256-gcm", rate / ours, rate / fastest, "MB/s", 0.6, True)


def _port(bench: Bench) -> Iterator[Row]:
    bench.task(
        'ports: ["18480:8000"]\ncommands:\n'
        f"  - head -c {_PAGE} /dev/zero >page; exec python -m http.server 8000"
    )
    watcher = subprocess.Popen(
        [bench.context.binary, "run", ".", "-n", "web", "--backend", "alpha"],
        cwd=bench.project,
        env=bench.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    plain = subprocess.Popen(
        [*bench.ssh[:1], "-N", "-L", "18481:127.0.0.1:8000", "alpha"], env=bench.env
    )

    def get(port: int) -> None:
        url = f"http://127.0.0.1:{port}/page"
        bench.call(["curl", "-sSf", "-o", "/dev/null", url])

    try:
        bench.call(
            ["curl", "-sS", "-o", "/dev/null", "--retry", "40", "--retry-all-errors",
             "--retry-delay", "1", "http://127.0.0.1:18480/"]
        )  # fmt: skip
        ours, theirs = turns(lambda: get(18480), lambda: get(18481), 4)
    finally:
        plain.terminate()
        watcher.terminate()
        watcher.wait()
        plain.wait()
    rate = _PAGE / 1e6
    yield Row("a port forwarded, as ssh -L", rate / ours, rate / theirs, "MB/s", 0.95, True)


def _watching(bench: Bench) -> Iterator[Row]:
    names = ("alpha", "nogit", "boxes")
    # Without an environment: two of the hosts have no Python of their own to make one of.
    bench.task("commands: [sleep 600]")
    for n in range(_RUNS):
        argv = [bench.context.binary, "run", ".", "-d", "--backend", names[n % 3]]
        bench.call(argv)
    time.sleep(10)
    with _cpu(lambda: _ours(bench)) as here, _cpu(lambda: _theirs(bench, names)) as there:
        time.sleep(_WATCHED)
    bench.call([bench.context.binary, "stop", "-a", "-x", "-y"])
    yield Row(f"{_RUNS} runs on 3 hosts watched: of a core, here", here[0], None, "%", 5)
    yield Row("... of a core, there, each", there[0] / 3, None, "%", 1)


@contextmanager
def _cpu(processes: Callable[[], Iterable[int]]) -> Iterator[list[float]]:
    """Afterwards the list has the share of a core that the processes took, in percent."""
    found: list[float] = []
    before, begun = _ticks(processes()), time.monotonic()
    yield found
    after = _ticks(processes())
    used = sum(ticks - before.get(pid, 0) for pid, ticks in after.items())
    found.append(100 * used / os.sysconf("SC_CLK_TCK") / (time.monotonic() - begun))


def _ticks(pids: Iterable[int]) -> dict[int, int]:
    """What each has used, and what its children that have ended did."""
    found = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[pid] = sum(map(int, fields[11:15]))
    return found


def _ours(bench: Bench) -> Iterator[int]:
    """The background supervisor, its channels, and the shared connections."""
    marks = (f"DSTACK_HOME={bench.home}".encode(), str(socket_folder(bench.home)).encode())
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if any(mark in text for mark in marks) and int(entry.name) != os.getpid():
            yield int(entry.name)


def _theirs(bench: Bench, names: Iterable[str]) -> Iterator[int]:
    """Everything on the hosts but what the runs themselves do (they sleep)."""
    for name in names:
        host = bench.hosts.all[name]
        yield from (process.pid for process in (*host.processes(), *host.daemons()))


def turns(
    ours: Callable[[], None],
    theirs: Callable[[], None],
    rounds: int,
    before: Callable[[], None] | None = None,
) -> tuple[float, float]:
    """Median seconds of both; `before` is done before each, and not counted."""

    def timed(act: Callable[[], None]) -> float:
        if before is not None:
            before()
        begun = time.monotonic()
        act()
        return time.monotonic() - begun

    return side_by_side(lambda: timed(ours), lambda: timed(theirs), rounds=rounds)


def _ms(seconds: float) -> float:
    return round(seconds * 1000)
