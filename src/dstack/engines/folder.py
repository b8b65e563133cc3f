"""What engines have in common whose jobs are folders of this machine: job.sh does the work."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ..errors import CannotStart, HostError, HostRefused, HostUnreachable
from ..hosts.base import Completed, Content, File, Host, ProcessId
from ..paths import Home
from ..run.model import Exit, Plan, Run
from ..run.observation import (
    Absent,
    Exited,
    Observation,
    Preparing,
    Running,
    Unknown,
    unknown_of,
)
from .base import Facts, Job, Reach, StopReason
from .outcome import parse_exit
from .render import CGROUPS, assignments, phase, values_file

STOP_GRACE = 10  # seconds from SIGTERM to SIGKILL; SPEC: `dstack stop`

_END_TIMEOUT = 60.0  # ending what a dead keeper left: SIGKILL to a few processes
_BLANKS = b" " * 1024  # what `exit` will be written over, so that a full disk cannot lose it
_SHELL = "/bin/sh"


class FolderEngine:
    """Starts, looks at, stops and removes jobs by their folders, on `host` or on this machine.

    An engine adds what job.sh is made of. `shown` are the files of a job folder that tell how far
    it is: its phase, and whether the commands run.
    """

    name = ""
    shown: tuple[str, ...] = ("phase", "running")

    def __init__(
        self,
        home: Home,
        host: Host | None = None,
        *,
        shell: Sequence[str] = (_SHELL,),
        grace: int = STOP_GRACE,
    ) -> None:
        if host is None:
            from ..hosts.local import LocalHost

            host = LocalHost(home.root)
        self.home = home
        self.host = host
        self.shell = tuple(shell)
        self.grace = grace

    def facts(self, *, pythons: bool = False, limits: bool = False) -> Facts:
        """See Engine."""
        raise NotImplementedError

    def plan(self, run: Run, run_folder: Path, attempt: int) -> Job:
        """See Engine. `run_folder` need not exist."""
        raise NotImplementedError

    def body(self) -> str:
        """The part of job.sh that is the same for every job."""
        raise NotImplementedError

    def put(self, job: Job, values: Mapping[str, str]) -> None:
        """Write the job folder. Raises HostError."""
        self.host.put(Path(job.directory), job_files(job, values))

    def start(self, job: Job, values: Mapping[str, str], *, fresh: bool = False) -> int | None:
        """See Engine."""
        missing = [name for name in (*job.needs, *job.keys) if name not in values]
        if missing:
            message = f"the value of {missing[0].partition(':')[2]} is not there"
            raise CannotStart(message, hint="set it with `dstack secrets set` or in the shell")
        folder = Path(job.directory)
        try:
            if not fresh:
                ended, pid = self.host.read_many([folder / "exit", folder / "pid"])
                if ended or pid:
                    return _pid(pid)
            self.put(job, values)
            return self.host.spawn(
                [*self.shell, f"{folder}/job.sh"],
                env={"DSTACK_JOB": f":{job.name}:", "DSTACK_HOME": os.fspath(self.home.root)},
                output=folder / "keeper.log",
            )
        except (HostUnreachable, HostRefused):
            raise  # it may have been started, and it is tried again
        except HostError as error:
            message = f"the run could not be started: {error.message}"
            raise CannotStart(message, hint=error.hint) from None

    def poll(self, directories: Sequence[Path]) -> dict[Path, Observation]:
        """See Engine. What a dead keeper left is ended here, and its `exit` written."""
        try:
            contents, alive = self.host.survey(*self._asked(directories))
        except HostError as error:
            return dict.fromkeys(directories, unknown_of(error))
        names = self._names
        seen: dict[Path, Observation] = {}
        for n, (directory, lives) in enumerate(zip(directories, alive, strict=True)):
            exit_, pid, script, *shown = contents[n * len(names) : (n + 1) * len(names)]
            try:
                found = self._seen(directory, (exit_, pid, script), shown, lives=lives)
            except HostError as error:
                found = unknown_of(error)
            seen[directory] = found
        return seen

    @property
    def _names(self) -> tuple[str, ...]:
        return ("exit", "pid", "job.sh", *self.shown)

    def _asked(self, directories: Sequence[Path]) -> tuple[list[Path], list[Path]]:
        """What is asked of the host: which files, and whose links."""
        files = [directory / name for directory in directories for name in self._names]
        return files, [directory / "pid" for directory in directories]

    def foresee(self, directory: Path) -> None:
        """See Engine."""
        self.host.foresee_survey(*self._asked([directory]))

    def _seen(
        self,
        directory: Path,
        files: tuple[Content | None, Content | None, Content | None],
        shown: Sequence[Content | None],
        *,
        lives: bool,
    ) -> Observation:
        """What the job's `exit`, `pid` and `job.sh` and what is shown mean."""
        exit_, pid, script = files
        if exit_:
            return self._exited(directory, exit_)
        if not pid:
            if script is None:
                self.end_lost(directory)
            return Absent(folder=script is not None)
        if lives:
            return self.under_way(directory, _name(pid), shown)
        return self._bury(directory, _keeper(pid))

    def stop(self, directory: Path, *, kill: bool, reason: StopReason = "stopped") -> None:
        """See Engine."""
        grace = 0 if kill else self.grace
        names = ("job.sh", "pid", "exit", "stop")
        script, pid, ended, before = self.host.read_many([directory / name for name in names])
        if script is None or ended:
            return
        # The first reason stands, and what was asked to be quick does not become slow again.
        if before:
            words = before.data.split()
            if len(words) == 2 and words[1].isdigit():
                reason_before, grace_before = words[0].decode(), int(words[1])
                reason = "max_duration" if reason_before == "max_duration" else "stopped"
                grace = min(grace, grace_before)
        self.host.put(directory, {"stop": File(f"{reason} {grace}\n".encode())})
        if pid is None:
            # The keeper looks for `stop` first thing.
            return
        argv = [*self.shell, f"{directory}/job.sh", "stop"]
        self.host.spawn(argv, env={}, output=Path(os.devnull))

    def address(self, directory: Path, port: int) -> Reach:
        """See Engine."""
        from .reach import of_process

        return of_process(self.host, self.shell, directory, port)

    def note(self, directory: Path) -> str | None:
        """See Engine."""
        (said,) = self.host.read_many([directory / "note"])
        return said.data.decode("utf-8", "replace").strip() if said is not None else None

    def remove(self, run_folder: Path) -> None:
        """See Engine."""
        attempts: list[Path] = []
        for name in sorted(self.host.list_folder(run_folder)):
            if not name.isdigit():
                continue
            directory = run_folder / name
            pid, ended = self.host.read_many([directory / "pid", directory / "exit"])
            attempts.append(directory)
            if pid and (not ended or self._cgroups(directory)):
                self._end_now(directory, _keeper(pid))
        self.delete(run_folder, attempts)

    def base(self, directory: Path) -> str:
        """See Engine."""
        return ""

    def find_base(self, plan: Plan) -> str:
        """See Engine."""
        return ""

    def build_image(self, directory: Path) -> tuple[str, int] | None:
        """See Engine."""
        return None

    def discard_image(self, image: str, client: str, environ: Mapping[str, str]) -> None:
        """See Engine."""

    def take_back(self, run_folder: Path, directory: Path) -> None:
        """See Engine."""

    def clear(self, run_folder: Path) -> None:
        """See Engine."""
        for name in ("code", "env"):
            self.host.delete(run_folder / name)

    def delete(self, run_folder: Path, attempts: Sequence[Path]) -> None:
        """Delete a run's folder; `attempts` are the job folders in it. Raises HostError."""
        self.host.delete(run_folder)

    def under_way(
        self, directory: Path, keeper: str | None, shown: Sequence[Content | None]
    ) -> Observation:
        """What a job does whose keeper lives; `shown` is what the files of that name hold."""
        stage, running = shown[0], shown[1]
        if running is not None:
            return Running(keeper, running.at)
        words = stage.data.decode("utf-8", "replace").split() if stage else []
        return Preparing("setup" if words[:1] == ["setup"] else "environment", keeper)

    def ended(self, directory: Path, end: Exit) -> Exit:
        """How a job ended, in words for people where job.sh has none."""
        return end

    def _exited(self, directory: Path, exit_: Content) -> Exited:
        end = parse_exit(exit_.data.decode("utf-8", "replace"), exit_.at)
        return Exited(self.ended(directory, end))

    def _cgroups(self, directory: Path) -> bool:
        """Whether control groups are left: the keeper was killed just after it wrote `exit`."""
        (listed,) = self.host.read_many([directory / "cgroups"])
        paths = os.fsdecode(listed.data).split() if listed else []
        return any(self.host.read_many([Path(path) for path in paths]))

    def _end_now(self, directory: Path, keeper: ProcessId | None) -> None:
        import signal

        if keeper is not None:
            # Without its keeper the job ends here and now, and does not write where we delete.
            self.host.signal(keeper, signal.SIGKILL)
            until = time.monotonic() + _END_TIMEOUT
            while self.host.alive([keeper])[0] and time.monotonic() < until:
                time.sleep(0.002)
        self._end(directory)

    def _end(self, directory: Path) -> Completed:
        return self.host.run([*self.shell, f"{directory}/job.sh", "end"], timeout=_END_TIMEOUT)

    def end_lost(self, directory: Path) -> None:
        """End what may run without its folder, which somebody deleted with the script in it."""
        self.end_marked(directory, self.body())

    def end_marked(self, directory: Path, body: str) -> None:
        """End all that bears the mark of such a job, by what job.sh is made of."""
        name = f"{directory.parent.name}-{directory.name}"
        values = {"job_name": name, "job_folder": f"{directory}", "job_cgroup_root": CGROUPS}
        script = "\n".join([*assignments(values), body])
        try:
            self.host.run([*self.shell, "-c", script, "sh", "end"], timeout=_END_TIMEOUT)
        except HostError:
            pass  # the next look does it again, or nothing can be done

    def _bury(self, directory: Path, keeper: ProcessId | None) -> Observation:
        (exit_,) = self.host.read_many([directory / "exit"])
        if exit_ is None:
            restarted = keeper is not None and keeper.boot not in ("", self.host.boot_id())
            try:
                done = self._end(directory)
                (exit_,) = self.host.read_many([directory / "exit"])
            except HostError as error:
                return Unknown(error.message)
            if done.code == _ALIVE:
                return Running()
            if done.code == _UNKNOWN:
                return Unknown("what is left of the run cannot be ended now")
            if exit_ is None:
                # The folder is deleted or cannot be written: it has ended all the same.
                reason: str = "host_restarted" if restarted else "killed"
                return Exited(parse_exit(f"code=137\nreason={reason}\nsignal=9\n", None))
        return self._exited(directory, exit_)


# What `job.sh end` exits with when the keeper lives, and when what it left cannot be ended now.
_ALIVE, _UNKNOWN = 3, 4


def part(name: str) -> str:
    """One of the scripts that lie beside this file."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def gpu_part(plan: Plan) -> str:
    """The part that chooses GPUs, for a job that has any."""
    return part("nvidia.sh") + part("gpus.sh") if plan.gpus else ""


def describe_job(run: Run, attempt: int) -> str:
    """What `job.json` says."""
    plan = run.plan
    about = {
        "name": run.name,
        "id": run.id,
        "attempt": attempt,
        "engine": plan.engine,
        "backend": plan.backend,
        "project": plan.project,
        "file": plan.file,
        "workdir": plan.workdir,
        "python": plan.python,
        "image": plan.image,
        "registry_auth": plan.registry_auth is not None,
        "submitted_at": run.submitted_at,
    }
    return msgspec.json.format(msgspec.json.encode(about), indent=1).decode() + "\n"


def job_files(job: Job, values: Mapping[str, str]) -> dict[str, File]:
    """What lies in a job folder before it starts."""
    texts = {**job.files, "job.sh": job.script}
    files = {name: File(os.fsencode(text)) for name, text in texts.items()}
    files["phase"] = File(f"{phase('environment', 0)}\n".encode(), keep=True)
    files["exit.new"] = File(_BLANKS, keep=True)
    if job.needs:
        text = values_file(job.needs, [values[name] for name in job.needs])
        files["env"] = File(os.fsencode(text))
    return files


def _keeper(pid: Content | None) -> ProcessId | None:
    if pid is None:
        return None
    try:
        return ProcessId.parse(os.fsdecode(pid.data))
    except ValueError:
        return None


def _name(pid: Content | None) -> str | None:
    """A keeper as observations name it."""
    return os.fsdecode(pid.data) if _keeper(pid) is not None and pid is not None else None


def _pid(pid: Content | None) -> int | None:
    keeper = _keeper(pid)
    return keeper.pid if keeper else None
