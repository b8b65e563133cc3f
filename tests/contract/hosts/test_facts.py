"""What a host has: told by system calls where dstack runs, by a script elsewhere, and the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dstack.engines.facts import facts_script, find_facts, parse_machine
from dstack.hosts.base import Machine
from dstack.hosts.local import LocalHost
from dstack.paths import Home
from tests.contract.hosts.conftest import SshHostMaker
from tests.hosts.services import Hosts

SMI = """#!/bin/sh
[ "$1" = --query-gpu=name,memory.total ] || exit 3
echo "NVIDIA A100-SXM4-40GB, 40960"
echo "Tesla T4, 15360"
"""


@pytest.mark.parametrize("shell", [("/bin/sh",), ("bash",), ("busybox", "sh")])
def test_the_script_finds_what_system_calls_find(tmp_path: Path, shell: tuple[str, ...]) -> None:
    host = LocalHost(tmp_path)
    done = host.run([*shell, "-c", facts_script(), "sh", str(tmp_path / "not" / "yet")])
    assert done.err == b""
    found, known = parse_machine(done.out.decode()), host.machine()
    assert found.cpus == known.cpus
    assert found.memory == pytest.approx(known.memory, rel=0.01)
    assert found.disk == pytest.approx(known.disk, rel=0.05)


@pytest.mark.parametrize("alias", ["alpha", "bare"])
def test_another_machine_is_asked_once(hosts: Hosts, ssh_host: SshHostMaker, alias: str) -> None:
    hosts[alias].write("/usr/local/bin/nvidia-smi", SMI, mode=0o755)
    host = ssh_host(alias)
    try:
        facts = find_facts(host, Home(host.root), pythons=True, limits=False, gpus=True)
        assert facts.cpus == os.cpu_count()
        assert facts.memory > 1 << 28
        assert facts.disk > 1 << 20
        assert [(gpu.name, gpu.memory >> 30) for gpu in facts.gpus] == [
            ("NVIDIA A100-SXM4-40GB", 40),
            ("Tesla T4", 15),
        ]
        assert bool(facts.pythons) == (alias == "alpha")
    finally:
        hosts[alias].path("/usr/local/bin/nvidia-smi").unlink()
    # What is known is not asked again.
    hosts[alias].link.drop()
    try:
        home = Home(host.root)
        assert find_facts(host, home, pythons=True, limits=False, gpus=True) == facts
    finally:
        hosts[alias].link.heal()


def test_limits_of_control_groups_count() -> None:
    said = "cpus 8\nquota max 100000\nquota 250000 100000\nmemory 900\nmemory max\nmemory 300\n"
    said += "disk Available\ndisk 7\n"
    assert parse_machine(said) == Machine(2, 300, 7168)
