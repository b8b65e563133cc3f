"""`watch` on a run that was kept, but cannot be started as it was promised."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dstack.cli.watch import watch
from dstack.paths import Home
from dstack.run.model import Plan, Run
from dstack.supervise.build import make_supervisor


def test_a_port_that_is_taken_in_the_last_moment_ends_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    supervisor = make_supervisor(home)
    plan = Plan(
        name="web", project=str(tmp_path), workdir=".", file=".dstack.yml", backend="local",
        engine="process", commands=("echo never",),
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = ((1, taken.getsockname()[1]),)
        new = Run(
            id="1" * 12, name="web", plan=plan, status="submitted", submitted_at=0.0, ports=ports
        )  # fmt: skip
        stored = supervisor.runs.add(new, supervisor.leases.take)
        assert watch(supervisor, stored) == 125
    assert (stored.run.status, stored.run.reason) == ("failed", "start_failed")
    assert "is taken" in (stored.run.message or "")
    out, err = capfd.readouterr()
    assert out == ""
    assert f"local port {ports[0][1]} is taken" in err
    assert supervisor.runs.active() == []
