"""Where things lie under dstack's folder; no other module knows these names.

```
~/.dstack/ (or $DSTACK_HOME), 0700
  config.yml               backends and their options (written by the user)
  dstack.db                runs, their history, secrets (encrypted)
  key                      the key that encrypts secrets, 0600
  leases                   one byte a run: who holds its lock supervises it
  supervisor.lock, .log    the background supervisor
  code/                    the content-addressed store of code, and one index per project
  cache/                   what `cache:` keeps between runs
  envs/                    templates and spare environments
  guard/                   links to the jobs that are watched for max_duration, and for when they
                           print; and who watches
  images/                  who the user of a container image is, by the image's id; what Podman said
                           of images, by the environment that it was asked in
  gpus/                    who has which GPU
  parsed/                  the trees of task files that were read before
  builds/RUN_ID/           what the build stage of that run made, and what it was made from
  runs/RUN_ID/             one run
    code/                  its copy of the code; the commands run here
    env/                   its Python environment
    ATTEMPT/               one job folder: job.json, job.sh, env, log, log.idx, log.seen, phase,
                           pid, exit
```
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import StoreError


class Home:
    """The layout of one dstack folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yml"
        self.database = root / "dstack.db"
        self.key = root / "key"
        self.leases = root / "leases"
        self.supervisor_lock = root / "supervisor.lock"
        self.supervisor_log = root / "supervisor.log"
        self.code = root / "code"
        self.cache = root / "cache"
        self.envs = root / "envs"
        self.guard = root / "guard"
        self.images = root / "images"
        self.parsed = root / "parsed"
        self.builds = root / "builds"
        self.gpus = root / "gpus"
        self.runs = root / "runs"

    def run(self, run_id: str) -> Path:
        """The folder of one run."""
        return self.runs / run_id

    def build(self, build_id: str) -> Path:
        """The folder of one build; its id is that of the run that made it."""
        return self.builds / build_id

    def job(self, run_id: str, attempt: int) -> Path:
        """The job folder of one attempt (the first is 1)."""
        return self.runs / run_id / str(attempt)


def find_home() -> Home:
    """The user's folder, made (0700) when it is missing.

    Raises StoreError when it cannot be made, is not a folder, or belongs to somebody else.
    """
    given = os.environ.get("DSTACK_HOME")
    try:
        # absolute(), not resolve(): the user's own link to a larger disk keeps its name.
        root = Path(given).expanduser().absolute() if given else Path.home() / ".dstack"
    except RuntimeError:
        message = "there is no home folder to keep dstack's state in"
        raise StoreError(message, hint="set HOME or DSTACK_HOME") from None
    hint = "set DSTACK_HOME to a folder that you can write to"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.stat()
    except OSError as error:
        message = f"cannot make dstack's folder {root}: {error.strerror}"
        raise StoreError(message, hint=hint) from None
    if not stat.S_ISDIR(found.st_mode):
        message = f"dstack's folder {root} is not a folder"
        raise StoreError(message, hint=hint)
    if found.st_uid != os.getuid():
        message = f"dstack's folder {root} belongs to another user"
        raise StoreError(message, hint=hint)
    if found.st_mode & 0o077:
        root.chmod(0o700)
    return Home(root)
