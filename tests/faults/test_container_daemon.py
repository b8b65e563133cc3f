"""Docker's daemon is stopped while a run is active: what is not known is not finished."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Project
from tests.engines.daemon import Daemon
from tests.engines.services import Services
from tests.faults.conftest import use
from tests.support import Dstack, wait_for


def test_ps_says_unknown_and_then_the_truth(
    docker_daemon: Callable[..., Daemon],
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    dstack: Dstack,
    project: Project,
    begun: Callable[[str], None],
) -> None:
    daemon = docker_daemon("--live-restore")
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    daemon.copy_image(services.engines["docker"], "busybox")
    engine = daemon.client()
    use(dstack, engine)
    folder = project(
        f"type: task\nimage: {engine.image('busybox')}\ncommands:\n  - echo begun\n"
        "  - while [ ! -e go ]; do sleep 0.05; done\n  - echo ended\n  - exit 5\n"
    )
    dstack.ok("run", folder, "-n", "boxed", "-d")
    begun("boxed")
    # What the daemon dies over while it starts it is lost with it.
    wait_for(lambda: engine.containers(all=False), "the daemon to know")
    daemon.terminate()
    run = dstack.wait_status("boxed", "unknown")
    assert run["unknown_since"] is not None
    assert run["finished_at"] is run["reason"] is run["exit_code"] is None
    assert " unknown " in dstack.ok("ps")
    assert dstack.ok("logs", "boxed") == "begun\n"
    daemon.launch()
    assert dstack.wait_status("boxed", "running")["unknown_since"] is None
    (code,) = dstack.home.glob("runs/*/code")
    (code / "go").touch()
    run = dstack.wait_status("boxed", "failed")
    assert (run["reason"], run["exit_code"]) == ("command_failed", 5)
    assert dstack.ok("logs", "boxed") == "begun\nended\n"
    assert engine.containers() == []
