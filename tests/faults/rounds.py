"""One round of killing: a random job, random victims, a random moment; then what must be true.

The verdict never depends on how fast the machine is: whatever the moment hit, the rules hold.
The job writes each line twice, to its output and then to a file of its own: that file is the truth.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import Dstack, processes_of, wait_for

# Generous: a busy machine is no bug.
DEADLINE = 120.0
# Seconds between two commands that ask, when nothing happens that calls for one: they would be most
# of what a round costs.
LOOK = (0.5, 1.0, 2.0)

LINES = """\
say() {{ echo "$1"; echo "$1" >>{side}/$DSTACK_ATTEMPT.lines; }}
echo $DSTACK_ATTEMPT >>{side}/starts
i=0; while [ $i -lt {lines} ]; do i=$((i + 1)); say "$DSTACK_ATTEMPT:$i"; {pace}; done
"""
# Everything that may outlive its parent carries the token, so that it is found without a mark.
CHILDREN = {
    "none": "",
    "background": "sleep {token} &",
    "session": "setsid sleep {token} >/dev/null 2>&1 &",
    "orphan": "(setsid sh -c 'sleep {token} & sleep {token}' &)",
    "unmarked": "(env -i setsid sleep {token} &)",
    "deaf": "(trap '' TERM HUP INT; setsid sleep {token} &)",
}
_PACES = (":", "sleep 0.01", "sleep 0.03", "[ $((i % 7)) != 0 ] || sleep 0.1")
_VICTIMS = ("cli", "keeper", "supervisor", "cli+keeper", "cli+supervisor", "all", "stop")
# What is waited for before the blow, as moments counted in seconds hit other things on other days.
_MOMENTS = ("typed", "folder", "claimed", "lines", "lines", "lines", "exit")


class Round:
    """What is done in one round, all drawn from `seed`."""

    victim_kinds: tuple[str, ...] = _VICTIMS
    fatal = frozenset({"keeper"})  # with whom the attempt may end
    more_ends: tuple[tuple[str, str, int], ...] = ()  # which it may have then
    watch = 0.02  # seconds between two looks for the moment
    most_runs = 1
    waits = False  # whether the command may start another run after one has ended

    def __init__(self, seed: int, side: Path) -> None:
        draw = random.Random(seed)
        self.seed = seed
        self.name = f"round-{seed}"
        self.token = f"{4000 + seed}.{os.getpid()}"
        self.side = side
        self.lines = draw.choice((1, 20, 40, 60))
        self.pace = draw.choice(_PACES)
        self.children = draw.choice(list(CHILDREN))
        self.code = draw.choice((0, 0, 3, 77))
        self.retry = draw.random() < 0.25
        self.setup = draw.random() < 0.25
        self.detached = draw.random() < 0.4
        self.victims = draw.choice(self.victim_kinds)
        self.moment = draw.choice(_MOMENTS)
        self.part = draw.random()  # of the lines
        self.after = draw.uniform(0, 0.4 if self.moment == "typed" else 0.04)
        if self.victims == "stop":
            # It takes a moment to be understood: there must be something left to stop then.
            self.lines, self.pace = 60, "sleep 0.03"
        self.kill = draw.random() < 0.5  # `stop -x`
        self.stop_lives = draw.choice((draw.uniform(0, 0.3), 60.0))

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in vars(self).items() if key != "side")

    @property
    def truth(self) -> Path:
        """Where what the job writes into its own files lies."""
        return self.side

    def args(self) -> list[str]:
        """The command that is hit."""
        return ["run", ".", "-n", self.name, *(["-d"] if self.detached else [])]

    def begin(self, dstack: Dstack) -> None:
        """Look at what was there before."""

    def job(self, dstack: Dstack, before: set[Path]) -> Path | None:
        """Where the first job of the run lies, once it does; `before` are the runs' folders."""
        new = set(dstack.home.glob("runs/*")) - before
        return next(iter(new)) / "1" if new else None

    def ends(self, dstack: Dstack) -> int:
        """How many attempts have written how they ended, those of earlier rounds included."""
        return sum(1 for _ in dstack.home.glob("runs/*/*/exit"))

    def trouble(self) -> AbstractContextManager[None]:
        """What else happens while the victims are killed."""
        return nullcontext()

    @property
    def lost(self) -> bool:
        """Whether the attempt under way may have ended by that."""
        return False

    def unbegun(self, said: str) -> bool:
        """Whether there may be no run by that; `said` is what the command said."""
        return False

    def order(self) -> list[str]:
        """The victims. Their order is drawn, too: who dies first decides who might still act."""
        who = self.victims if self.victims != "all" else "cli+keeper+supervisor"
        found = who.split("+")
        random.Random(self.seed).shuffle(found)
        return found

    def stop_args(self) -> list[str]:
        """The command that stops it."""
        return ["stop", self.name, *(["-x"] if self.kill else [])]

    def is_mine(self, run: dict[str, Any]) -> bool:
        """Whether a run of the state folder is this round's."""
        return bool(run["name"] == self.name)

    def settings(self) -> tuple[str, str]:
        """The folder `truth` as the job sees it, and further lines of the task file."""
        return str(self.side), ""

    def strike(self, dstack: Dstack, victim: str) -> bool:
        """Kill a victim other than the command; whether it was there."""
        pids = supervisors(dstack) if victim == "supervisor" else keepers(dstack)
        return sum(kill(pid) for pid in pids) > 0

    def is_excuse(self, line: str) -> bool:
        """Whether the line, which is none of the job's, may be in the output."""
        return False

    def left(self, run_id: str | None) -> list[str]:
        """What is left of the run beside processes."""
        found = []
        if run_id:
            # Others come and go meanwhile; os.walk() does not mind.
            for folder, names, _ in os.walk("/sys/fs/cgroup"):
                found += [f"{folder}/{n}" for n in names if n.startswith(f"dstack-{run_id}-")]
        return found

    def reached(self, dstack: Dstack, before: set[Path], cli: subprocess.Popen[bytes]) -> bool:
        """Whether the moment of the blow is there, or the run's end came first."""
        job = self.job(dstack, before)
        if self.moment == "typed" or (job is not None and (job / "exit").exists()):
            return True
        if job is None or (self.detached and "supervisor" in self.victims and cli.poll() is None):
            return False
        if self.detached and "supervisor" in self.victims and not supervisors(dstack):
            return False
        if self.moment == "lines":
            return self.counted() >= self.part * self.lines
        if self.moment == "claimed":
            return os.path.lexists(job / "pid")
        return self.moment == "folder"

    def counted(self) -> int:
        """How many lines the job has written."""
        return sum(path.read_bytes().count(b"\n") for path in self.truth.glob("*.lines"))

    def judge(self, dstack: Dstack, folder: Path, seen: Seen) -> None:
        """Check what must be true afterwards."""
        if not seen.runs:
            # Killed before it was recorded: then nothing may have been started either.
            said = (self.side / "said").read_text()
            unbegun = "cli" in seen.hit or self.unbegun(said)
            assert unbegun, f"no run, and nobody killed it: {said}"
            assert not (self.truth / "starts").exists()
            nothing_left(dstack, self, None)
            return
        (run,) = seen.runs
        check_output(dstack, self, run, None if self.detached else seen.shown, seen.code)
        check_end(self, run, seen.hit, seen.stopped)
        check_starts(self, run)
        nothing_left(dstack, self, str(run["id"]))

    def task(self) -> str:
        """The task file."""
        side, more = self.settings()
        body = LINES.format(side=side, lines=self.lines, pace=self.pace)
        # With retry the first attempt fails and the second one does not.
        end = f"[ $DSTACK_ATTEMPT != 1 ] || exit {self.code}" if self.retry else f"exit {self.code}"
        script = CHILDREN[self.children].format(token=self.token) + "\n" + body + end
        text = "type: task\n" + more
        if self.retry:
            text += "retry: {on_events: [error, interruption], duration: 1h}\n"
        if self.setup:
            text += f"setup:\n  - echo setup >>{side}/setups\n"
        return text + "commands:\n  - |\n" + "".join(f"    {line}\n" for line in script.split("\n"))


class Seen(NamedTuple):
    """What became of a round."""

    hit: set[str]  # the victims that were there
    stopped: bool  # whether a stop was asked
    runs: list[dict[str, Any]]  # as `ps` tells of them, once they have ended
    code: int  # the command's
    shown: bytes  # its output


def play(dstack: Dstack, folder: Path, plan: Round) -> None:
    """Play the round in the project `folder`, and check what must be true."""
    plan.side.mkdir(parents=True)
    (folder / ".dstack.yml").write_text(plan.task())
    shown = plan.side / "shown"
    before = set(dstack.home.glob("runs/*"))
    plan.begin(dstack)
    with shown.open("wb") as out, (plan.side / "said").open("wb") as err:
        cli = dstack.start(*plan.args(), cwd=folder, stdout=out, stderr=err)
        try:
            wait_for(
                lambda: plan.reached(dstack, before, cli),
                f"the moment of {plan}",
                timeout=DEADLINE,
                pause=plan.watch,
            )
            time.sleep(plan.after)
            with plan.trouble():
                hit, stopped = _strike(dstack, plan, cli)
            runs = _settle(dstack, plan, cli)
            code = cli.wait(DEADLINE)
        finally:
            cli.kill()
            cli.wait()
    plan.judge(dstack, folder, Seen(hit, stopped, runs, code, shown.read_bytes()))


# ---- killing ----


def _strike(dstack: Dstack, plan: Round, cli: subprocess.Popen[bytes]) -> tuple[set[str], bool]:
    """Kill the victims; who was there to be killed, and whether a stop was asked."""
    if plan.victims == "stop":
        quiet = subprocess.DEVNULL
        stop = dstack.start(*plan.stop_args(), stdout=quiet, stderr=quiet)
        try:
            stop.wait(plan.stop_lives)
        except subprocess.TimeoutExpired:
            stop.kill()
            stop.wait()
        return set(), True
    hit = set()
    for victim in plan.order():
        if victim == "cli":
            if cli.poll() is None:
                cli.kill()
                hit.add(victim)
        elif plan.strike(dstack, victim):
            hit.add(victim)
    return hit, False


def kill(pid: int) -> bool:
    """SIGKILL; one that has just ended is no error."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return True


def supervisors(dstack: Dstack) -> list[int]:
    """The background supervisors of this state folder."""
    found = processes_of(dstack.home)
    return [int(line.split()[0]) for line in found if "-m dstack.supervise" in line]


def keepers(dstack: Dstack) -> list[int]:
    """The keepers of jobs that have not ended."""
    found = []
    for script in dstack.home.glob("runs/*/*/job.sh"):
        try:
            # A link to nowhere: glob() would not find it.
            identity = os.readlink(script.parent / "pid")
        except OSError:
            continue
        if not (script.parent / "exit").exists():
            found.append(int(identity.split(":")[0]))
    return found


# ---- what must be true ----


def _settle(dstack: Dstack, plan: Round, cli: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """Look with `ps` until what the round started has ended; empty when there is none."""

    def ended() -> list[list[dict[str, Any]]] | None:
        # A command that still lives may be about to record a run.
        over = cli.poll() is not None
        runs = [run for run in dstack.ps("-a") if plan.is_mine(run)]
        if any(run["status"] not in ("done", "failed", "stopped") for run in runs):
            return None
        return [runs] if over or (runs and not plan.waits) else None

    def progress() -> tuple[int, bool]:
        return plan.ends(dstack), cli.poll() is not None

    deadline = time.monotonic() + DEADLINE
    pauses = iter(LOOK)
    while True:
        before = progress()
        if found := ended():
            (runs,) = found
            break
        assert time.monotonic() < deadline, f"waited {DEADLINE:g} s for {plan} to end"
        # Somebody has looked now: what is to be done is done without us.
        pause = next(pauses, LOOK[-1])
        until = time.monotonic() + pause
        while time.monotonic() < until:
            if progress() != before:
                pauses = iter(LOOK)
                break
            time.sleep(0.05)
    assert len(runs) <= plan.most_runs, f"more runs than one: {runs}"
    return runs


def check_output(
    dstack: Dstack, plan: Round, run: dict[str, Any], shown: bytes | None, code: int
) -> None:
    """No byte lost, none doubled, in `logs` and in what an attached command showed."""
    log = dstack.raw("logs", str(run["name"])).stdout
    by_attempt: dict[str, list[str]] = {}
    for line in log.decode().splitlines():
        attempt = line.partition(":")[0]
        if plan.is_excuse(line):
            continue
        assert attempt.isdigit(), f"a foreign line in the output: {line!r}"
        by_attempt.setdefault(attempt, []).append(line)
    for attempt, lines in by_attempt.items():
        assert lines == [f"{attempt}:{i}" for i in range(1, len(lines) + 1)]
    for path in plan.truth.glob("*.lines"):
        truth = path.read_text().splitlines()
        lines = by_attempt.get(path.stem, [])
        # Killed between the two writes, the output is one line ahead.
        assert lines[: len(truth)] == truth, f"attempt {path.stem}: output was lost"
        assert len(lines) <= len(truth) + 1
    if run["status"] == "done" or run["reason"] == "command_failed":
        assert len(by_attempt[str(run["attempt"])]) == plan.lines
    if shown is None:
        return
    assert log.startswith(shown), "an attached command showed what is not in the log"
    if code != -signal.SIGKILL:
        assert shown == log
        assert code == run["exit_code"]


def check_end(plan: Round, run: dict[str, Any], hit: set[str], stopped: bool) -> None:
    """The right end, with the right code and reason."""
    last = int(run["attempt"] or 0)
    own = plan.code if not plan.retry or last == 1 else 0
    natural = ("done", "completed", 0) if own == 0 else ("failed", "command_failed", own)
    end = (run["status"], run["reason"], run["exit_code"])
    allowed = {natural}
    fatal = plan.lost or bool(plan.fatal & hit)
    if fatal and not plan.retry:
        allowed |= {("failed", "killed", 137), *plan.more_ends}
    if stopped and run["reason"] == "stopped":
        assert run["status"] == "stopped"
        # Stopped in the pause before a retry, it keeps the code of the attempt that had ended.
        assert run["exit_code"] in (143, 137, 0, plan.code), run
        return
    assert end in allowed, f"{end} is none of {allowed}: {run}"
    # What ends by itself while it is told to stop is not tried again.
    if plan.retry and end == natural and not fatal and not stopped:
        assert last == (1 if plan.code == 0 else 2)


def check_starts(plan: Round, run: dict[str, Any]) -> None:
    """Each attempt was started once."""
    path = plan.truth / "starts"
    starts = path.read_text().split() if path.exists() else []
    assert len(starts) == len(set(starts)), f"started twice: {starts}"
    last = int(run["attempt"] or 0)
    assert all(int(start) <= last for start in starts)
    if run["status"] == "done" or run["reason"] == "command_failed":
        assert str(last) in starts
    setups = plan.truth / "setups"
    if plan.setup and starts:
        # One that was killed may have been killed in it, and then does it again.
        assert 1 <= len(setups.read_text().split()) <= last


def nothing_left(dstack: Dstack, plan: Round, run_id: str | None) -> None:
    """No process of the run, marked or not, and no cgroup."""

    def gone() -> bool:
        return not _left(dstack, plan, run_id)

    try:
        wait_for(gone, "the run's processes to be gone", timeout=30)
    except AssertionError:
        raise AssertionError(f"left behind: {_left(dstack, plan, run_id)}") from None


def _left(dstack: Dstack, plan: Round, run_id: str | None) -> list[str]:
    marked = processes_of(dstack.home, [run_id] if run_id else [])
    left = [line for line in marked if "-m dstack.supervise" not in line]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            # An empty command line is a zombie's.
            if plan.token.encode() in command:
                left.append(f"{entry.name} {command!r}")
        except OSError:
            continue
    return left + plan.left(run_id)
