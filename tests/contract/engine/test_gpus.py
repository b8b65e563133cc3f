"""Which GPUs a job gets, told by a stand-in for nvidia-smi that says what the test wants."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.engines import folder
from dstack.paths import Home
from dstack.run.model import Exit
from tests.contract.engine.conftest import (
    SHELLS,
    Bench,
    WithoutCgroups,
    finish,
    of_processes,
    wait_for,
)

SMI = """#!/bin/sh
echo "$1" >>{folder}/asked
case $1 in
--query-gpu=index,name,uuid,memory.total,memory.used,pstate) cat {folder}/gpus ;;
--query-compute-apps=gpu_uuid,pid) cat {folder}/processes ;;
*) echo "Invalid combination of input arguments." ; exit 2 ;;
esac
"""

Say = Callable[..., None]


def uuid(gpu: int) -> str:
    return f"GPU-{gpu}b3d4c1e-55aa-4f0e-9d1c-7e6a5b4c3d2{gpu}"


def rows(*used: int | str, total: int | str = 81559) -> str:
    return "".join(
        f"{n}, NVIDIA H100 80GB HBM3, {uuid(n)}, {total}, {each}, P0\n"
        for n, each in enumerate(used)
    )


@pytest.fixture
def smi(tmp_path: Path) -> Say:
    """`smi(gpus, processes)`: what it says from now on."""

    def say(gpus: str, processes: str = "") -> None:
        (tmp_path / "gpus").write_text(gpus)
        (tmp_path / "processes").write_text(processes)

    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(SMI.format(folder=tmp_path))
    tool.chmod(0o755)
    return say


@pytest.fixture(params=SHELLS)
def keeper(
    request: pytest.FixtureRequest, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """A bench of processes whose keepers find that nvidia-smi."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    bench = Bench(of_processes(request, home))
    yield bench
    finish(bench)


SHOW = 'echo "$CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER"'


def given(bench: Bench, count: int, of: int = 4, **plan: Any) -> tuple[str, str]:
    """What a job of `count` GPUs gets, and what is said of it."""
    directory = bench.start(SHOW, gpus=tuple(range(of)), gpu_count=(count, count), **plan)
    end = bench.ended(directory)
    assert end == Exit(0, "completed", stage="commands", index=1, at=end.at), bench.log(directory)
    return bench.log(directory).strip(), bench.engine.note(directory) or ""


def test_those_that_nobody_uses_come_first(keeper: Bench, smi: Say) -> None:
    smi(rows(70000, 4, 20000, 4), f"{uuid(0)}, 4711\n{uuid(2)}, 4712\n{uuid(2)}, 4713\n")
    assert given(keeper, 2) == ("1,3 PCI_BUS_ID", "")
    shared = "the run shares these GPUs with others: 2 (20000 MB used)"
    assert given(keeper, 3) == ("1,2,3 PCI_BUS_ID", shared)
    assert given(keeper, 1, of=1)[1] == "the run shares these GPUs with others: 0 (70000 MB used)"


def test_idle_ones_are_taken_in_their_order(keeper: Bench, smi: Say) -> None:
    # What the driver takes for itself differs by some megabytes, and is no use by anybody.
    smi(rows(1019, 3, 256, 0))
    assert given(keeper, 2) == ("0,1 PCI_BUS_ID", "")


def test_in_a_container_no_process_is_seen_but_memory_is(keeper: Bench, smi: Say) -> None:
    smi(rows(9000, 40000, 4), "")
    assert given(keeper, 2, of=3) == (
        "0,2 PCI_BUS_ID",
        "the run shares these GPUs with others: 0 (9000 MB used)",
    )


@pytest.mark.parametrize("word", ["[N/A]", "N/A", "[Insufficient Permissions]", "[Not Supported]"])
def test_memory_that_is_not_told(keeper: Bench, smi: Say, word: str) -> None:
    smi(rows(word, word, total=word), f"{uuid(0)}, 4711\n")
    assert given(keeper, 1, of=2) == ("1 PCI_BUS_ID", "")
    assert given(keeper, 2, of=2)[1] == "the run shares these GPUs with others: 0"


def test_processes_that_are_not_told(keeper: Bench, smi: Say) -> None:
    smi(rows(4, 4), f"{uuid(0)}, [Not Supported]\n")
    assert given(keeper, 1, of=2) == ("0 PCI_BUS_ID", "")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Failed to initialize NVML: Driver/library version mismatch\n",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
    ],
)
def test_an_nvidia_smi_that_fails_changes_nothing(keeper: Bench, smi: Say, said: str) -> None:
    smi(said, said)
    assert given(keeper, 2) == ("0,1 PCI_BUS_ID", "")


def test_beside_a_lost_one_cuda_is_told_uuids(keeper: Bench, smi: Say) -> None:
    lost = "Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error\n"
    first, _second, third = rows(4, 4, 4).splitlines(keepends=True)
    smi(first + lost + third)
    # The plan was made while there were three.
    assert given(keeper, 2, of=3) == (f"{uuid(0)},{uuid(2)} PCI_BUS_ID", "")


def test_what_the_user_sets_wins(keeper: Bench, smi: Say) -> None:
    smi(rows(4, 4))
    env = {"CUDA_VISIBLE_DEVICES": "7", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    assert given(keeper, 1, of=2, env=env) == ("7 FASTEST_FIRST", "")


def test_a_run_without_gpus_asks_nobody(keeper: Bench, smi: Say, tmp_path: Path) -> None:
    smi(rows(4))
    end, _ = keeper.do("true")
    assert end.reason == "completed"
    assert not (tmp_path / "asked").exists()


def test_a_leased_one_is_not_given_however_idle(keeper: Bench, smi: Say) -> None:
    smi(rows(70000, 4), f"{uuid(0)}, 4711\n")
    first = keeper.start("sleep 100", gpus=(0, 1), gpu_count=(1, 1))
    keeper.running(first)
    shared = "the run shares these GPUs with others: 0 (70000 MB used)"
    assert given(keeper, 1, of=2) == ("0 PCI_BUS_ID", shared)
    keeper.engine.stop(first, kill=True)
    keeper.ended(first)


def test_an_nvidia_smi_that_hangs_does_not_hold_the_run_up_for_ever(
    keeper: Bench, smi: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi("")
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 1000\n")
    part = folder.part
    # It gets ten seconds each, too long for a test.
    monkeypatch.setattr(folder, "part", lambda name: part(name).replace("-ge 200", "-ge 4"))
    assert given(keeper, 2) == ("0,1 PCI_BUS_ID", "")


FREEZER = Path("/sys/fs/cgroup/freezer")
# As one that waits for its driver: not even SIGKILL ends what is frozen there (freezer-subsystem).
FROZEN = """#!/bin/sh
echo $$ >{0}/cgroup.procs && echo FROZEN >{0}/freezer.state
exec sleep 1000
"""


@pytest.fixture
def frozen() -> Iterator[Path]:
    """A control group out of which no process can be ended."""
    if not os.access(FREEZER, os.W_OK):
        pytest.skip("freezing takes control groups of version 1")
    group = FREEZER / f"dstack-test-{os.getpid()}"
    group.mkdir()
    yield group
    (group / "freezer.state").write_text("THAWED")
    wait_for(lambda: not (group / "cgroup.procs").read_text(), "what was frozen to end")
    group.rmdir()


@pytest.mark.parametrize("shell", ["dash", "busybox"])
def test_an_nvidia_smi_that_cannot_be_killed_is_nothing_that_the_run_left(
    home: Home,
    smi: Say,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frozen: Path,
    shell: str,
) -> None:
    smi("")
    (tmp_path / "bin" / "nvidia-smi").write_text(FROZEN.format(frozen))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    part = folder.part
    monkeypatch.setattr(folder, "part", lambda name: part(name).replace("-ge 200", "-ge 4"))
    bench = Bench(WithoutCgroups(home, shell=SHELLS[shell], grace=3))
    # Without a control group the keeper adopts all orphans, and that process is one.
    assert given(bench, 2) == ("0,1 PCI_BUS_ID", "")
    finish(bench)
