"""What a host has: told by system calls where dstack runs, by a script elsewhere, and the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dstack.engines.facts import facts_script, find_facts, parse_machine
from dstack.hosts.base import Machine
from dstack.hosts.local import LocalHost
from dstack.paths import Home
from tests.contract.hosts.conftest import SshHostMaker
from tests.hosts.services import Hosts
from tests.support import wait_for

SMI = """#!/bin/sh
[ "$1" = --query-gpu=index,name,uuid,memory.total,memory.used,pstate ] || exit 3
echo "0, NVIDIA A100-SXM4-40GB, GPU-5a0b6bd2-1c1f-4e11-9a3c-6f3d0c1d5a01, 40960, 3, P0"
echo "2, Tesla T4, GPU-5a0b6bd2-1c1f-4e11-9a3c-6f3d0c1d5a02, 15360, 12000, P0"
echo "Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error"
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
        assert [(gpu.number, gpu.name, gpu.memory >> 30) for gpu in facts.gpus] == [
            (0, "NVIDIA A100-SXM4-40GB", 40),
            (2, "Tesla T4", 15),
        ]
        assert "0000:3B:00.0" in (facts.gpus_why or "")
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


@pytest.mark.parametrize("shell", [("/bin/sh",), ("busybox", "sh")])
def test_an_nvidia_smi_that_never_answers(tmp_path: Path, shell: tuple[str, ...]) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho $$ >$0.pid\nexec sleep 1000\n")
    smi.chmod(0o755)
    # It gets ten seconds, too long for a test: the tries are counted, so they can be fewer.
    script = facts_script().replace("-ge 200", "-ge 4")
    assert script != facts_script()
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = LocalHost(tmp_path).run(
        [*shell, "-c", script, "sh", str(tmp_path), "gpus"], env=environ, timeout=20
    )
    assert "gpu nvidia-smi does not answer\n" in done.out.decode()
    assert parse_machine(done.out.decode()).cpus
    status = Path("/proc", (tmp_path / "nvidia-smi.pid").read_text().strip(), "status")
    wait_for(lambda: not status.exists() or "zombie" in status.read_text(), "its end")


@pytest.mark.parametrize("shell", [("/bin/sh",), ("busybox", "sh")])
@pytest.mark.parametrize("size", ["nr_inodes=1", "size=4k"])
def test_where_no_answer_can_be_kept_it_is_said(
    tmp_path: Path, shell: tuple[str, ...], size: str
) -> None:
    """A full disk is not a machine without GPUs: no file can be made there, or none be filled."""
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", full], check=True)
    try:
        if size == "size=4k":
            (full / "other").write_bytes(b"x" * 4096)
        environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(full)}
        argv = [*shell, "-c", facts_script(), "sh", str(tmp_path), "gpus"]
        done = LocalHost(tmp_path).run(argv, env=environ, timeout=20)
        assert "gpu nvidia-smi " in done.out.decode()
    finally:
        subprocess.run(["umount", full], check=True)


def test_limits_of_control_groups_count() -> None:
    said = "cpus 8\nquota max 100000\nquota 250000 100000\nmemory 900\nmemory max\nmemory 300\n"
    said += "disk Available\ndisk 7\n"
    assert parse_machine(said) == Machine(2, 300, 7168)
