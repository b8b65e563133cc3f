"""Builds of containers: an image that is made once, and in which no secret is."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Task
from tests.engines.engine import Engine
from tests.engines.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.support import Dstack, wait_for

TASK = """
image: {image}
env: ['TOKEN=${{{{ secrets.TOKEN }}}}', 'PLAIN=seen']
build:
  - cat requirements.txt >/built
  - echo "built with $(echo "$TOKEN" | wc -c)" >>/built; mkdir -p out; echo left >out/file; rm old
commands:
  - cat /built out/file; ls; id -u
"""


@pytest.fixture
def docker_or_podman(engine: Engine, home: Path) -> Engine:
    """The one engine that dstack uses in this test; what is left behind fails it."""
    (home / "config.yml").write_text(
        f"backends:\n  - name: local\n    type: local\n    engine: {engine.name}\n"
    )
    return engine


def project(task: Task, engine: Engine, image: str = "python") -> Path:
    text = TASK.format(image=engine.image(image))
    return task(text, files={"requirements.txt": "numpy\n", "old": "1\n", "train.py": "1\n"})


def made(dstack: Dstack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dstack.ok("builds", "--json"))
    return found


def images(engine: Engine, dstack: Dstack) -> list[str]:
    """The images of builds that this test made."""
    runs = {run["id"] for run in dstack.ps("-a")}
    names = engine.cli("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    return [name for name in names if "dstack-build:" in name and name.rpartition(":")[2] in runs]


def test_an_image_is_made_once_and_runs_start_from_it(
    dstack: Dstack, task: Task, docker_or_podman: Engine
) -> None:
    engine = docker_or_podman
    dstack.ok("secrets", "set", "TOKEN", "hunter2-secret")
    folder = project(task, engine)
    assert "there is no build" in dstack("run", ".", cwd=folder).stderr
    dstack.ok("build", ".", cwd=folder)
    out = "numpy\nbuilt with 15\nleft\nout\nrequirements.txt\ntrain.py\n0\n"
    assert dstack.ok("run", ".", cwd=folder) == out
    (folder / "train.py").write_text("2\n")
    assert dstack.ok("run", ".", "-n", "again", cwd=folder) == out
    assert dstack.ok("restart", "again") == out
    (folder / "requirements.txt").write_text("pandas\n")
    assert "requirements.txt changed" in dstack("run", ".", cwd=folder).stderr
    (build,) = made(dstack)
    assert build["files"] == ["old", "requirements.txt"]
    # The secret is nowhere in it.
    about = engine.run("image", "inspect", build["image"]).stdout
    history = engine.run("history", "--no-trunc", build["image"]).stdout
    assert "hunter2" not in about + history
    search = engine.run(
        "run", "--rm", build["image"], "sh", "-c", "grep -rls hunter2 / --exclude-dir=proc || true"
    )
    assert search.stdout == ""
    dstack.ok("prune", "builds", "-y")
    assert made(dstack) == []
    assert images(engine, dstack) == []


def test_an_image_of_another_user(dstack: Dstack, task: Task, docker_or_podman: Engine) -> None:
    folder = task(
        f"image: {docker_or_podman.image('user')}\n"
        "build: ['cat in >made; mkdir -m 700 own; echo 1 >own/file; echo 2 >~/home']\n"
        "commands: ['cat made own/file ~/home; echo 3 >own/other; id -un']",
        files={"in": "in\n"},
    )
    assert dstack.ok("run", ".", "--build", cwd=folder) == "in\n1\n2\napp\n"
    assert dstack.ok("run", ".", cwd=folder) == "in\n1\n2\napp\n"
    dstack.ok("prune", "builds", "-y")


def test_a_failed_build_leaves_no_image_and_no_container(
    dstack: Dstack, task: Task, docker_or_podman: Engine
) -> None:
    folder = task(
        f"image: {docker_or_podman.image('python')}\nbuild: ['exit 3']\ncommands: ['true']"
    )
    assert dstack("build", ".", cwd=folder).returncode == 3
    assert made(dstack) == []
    assert images(docker_or_podman, dstack) == []


def test_an_image_that_disappears_is_told(
    dstack: Dstack, task: Task, docker_or_podman: Engine
) -> None:
    folder = task(
        f"image: {docker_or_podman.image('python')}\nbuild: [touch /a]\ncommands: [ls /a]"
    )
    dstack.ok("build", ".", cwd=folder)
    docker_or_podman.run("image", "rm", made(dstack)[0]["image"])
    done = dstack("run", ".", cwd=folder)
    assert done.returncode == 125
    assert "is not there any more: make it again with --force-build" in done.stderr
    assert dstack.ok("run", ".", "--force-build", cwd=folder) == "/a\n"
    dstack.ok("prune", "builds", "-y")


@pytest.mark.parametrize("whom", ["keeper", "client", "container"])
def test_what_is_killed_while_it_builds_leaves_nothing(
    dstack: Dstack, task: Task, docker_or_podman: Engine, whom: str
) -> None:
    folder = task(
        f"image: {docker_or_podman.image('python')}\n"
        "build: ['echo ready; until [ -e go ]; do sleep 0.05; done; echo 1 >/made']\n"
        "commands: [cat /made]"
    )
    build = dstack.start("build", ".", cwd=folder)
    assert build.stdout is not None
    assert build.stdout.readline() == b"ready\n"
    (run,) = dstack.ps()
    job = dstack.home / "runs" / run["id"] / "1"
    if whom == "keeper":
        pid = int((job / "pid").readlink().name.partition(":")[0])
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
    elif whom == "client":
        name = f"dstack-{run['id']}-1".encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            words = path.read_bytes().split(b"\0") if path.exists() else []
            if words[1:2] == [b"run"] and name in words:
                subprocess.run(["kill", f"-{signal.SIGKILL}", path.parent.name], check=False)
    else:
        docker_or_podman.run("kill", f"dstack-{run['id']}-1")
    (job.parent / "code" / "go").touch()
    build.communicate(timeout=120)
    if whom == "client":
        # The container went on, and so does the build.
        assert build.returncode == 0
        assert dstack.ok("run", ".", cwd=folder) == "1\n"
        dstack.ok("prune", "builds", "-y")
    else:
        assert build.returncode == 137
        assert made(dstack) == []
    wait_for(lambda: not images(docker_or_podman, dstack), "the image to be gone")


def test_the_image_s_own_command_is_that_of_the_base(
    dstack: Dstack, task: Task, docker_or_podman: Engine
) -> None:
    folder = task(f"image: {docker_or_podman.image('entry')}\nbuild: [touch /a]")
    dstack.ok("build", ".", cwd=folder)
    assert "the image's own command" in dstack.ok("run", ".", cwd=folder)
    dstack.ok("prune", "builds", "-y")
