"""The engine of plain processes: the commands run on the machine itself."""

from __future__ import annotations

import os
from pathlib import Path

from ..run.model import Run
from .base import Facts, Job
from .folder import FolderEngine, describe_job, gpu_part, part
from .render import Places, render


class ProcessEngine(FolderEngine):
    """Runs jobs as processes on its host."""

    name = "process"

    def facts(self, *, pythons: bool = False, limits: bool = False) -> Facts:
        """See Engine."""
        from .facts import find_facts

        return find_facts(self.host, self.home, pythons=pythons, limits=limits)

    def plan(self, run: Run, run_folder: Path, attempt: int) -> Job:
        """See Engine. `run_folder` need not exist."""
        folder = f"{run_folder}/{attempt}"
        places = Places(
            run=os.fspath(run_folder),
            job=folder,
            cache=os.fspath(self.home.cache),
            envs=os.fspath(self.home.envs),
            builds=os.fspath(self.home.builds),
            gpus=os.fspath(self.home.gpus),
            guard=os.fspath(self.home.guard),
            uv=(self.host.uv() or "") if run.plan.python else "",
        )
        script, needs = render(run, attempt, places, gpu_part(run.plan) + self.body())
        files = {"job.json": describe_job(run, attempt)}
        if run.plan.python and not run.plan.interpreter:
            files["find_python.sh"] = part("find_python.sh")
        name = f"{run.id}-{attempt}"
        return Job(name=name, directory=folder, script=script, needs=needs, files=files)

    def body(self) -> str:
        """See FolderEngine."""
        return process_body()


def process_body() -> str:
    """The part of job.sh that is the same for every job."""
    parts = ("environment.sh", "build.sh", "process.sh", "guard.sh", "marked.sh", "job.sh")
    return "\n".join(map(part, parts))
