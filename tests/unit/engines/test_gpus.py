"""What nvidia-smi prints: values seen with these drivers, in the columns that we ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.engines.base import GpuFact
from dstack.engines.gpus import Gpus, parse_gpus

MIB = 1 << 20
A, B, C = (f"GPU-{n}a3f1c52-9d0e-4b7a-8f21-6c5d4e3b2a1{n}" for n in range(3))

# index, name, uuid, memory.total, memory.used, pstate; sizes in MiB
GOOD = {
    "375.66, a display on it": (
        f"0, GeForce GTX TITAN X, {A}, 12206, 802, P8\n",
        [GpuFact("GeForce GTX TITAN X", 12206 * MIB, 0, A, 802 * MIB)],
    ),
    "396.24": (
        f"0, GeForce GTX 1070, {A}, 8114, 2, P8\n",
        [GpuFact("GeForce GTX 1070", 8114 * MIB, 0, A, 2 * MIB)],
    ),
    "410.72, a laptop": (
        f"0, GeForce GTX 960M, {A}, [Not Supported], [Not Supported], [Not Supported]\n",
        [GpuFact("GeForce GTX 960M", 0, 0, A)],
    ),
    "470.57, two kinds, with carriage returns": (
        f"0, Tesla V100-SXM2-16GB, {A}, 16160, 0, P0\r\n"
        f"1, NVIDIA A100-SXM4-40GB, {B}, 40536, 0, P0\r\n",
        [
            GpuFact("Tesla V100-SXM2-16GB", 16160 * MIB, 0, A, 0),
            GpuFact("NVIDIA A100-SXM4-40GB", 40536 * MIB, 1, B, 0),
        ],
    ),
    "515.65, what its firmware takes": (
        f"0, Tesla T4, {A}, 15360, 256, P8\n",
        [GpuFact("Tesla T4", 15360 * MIB, 0, A, 256 * MIB)],
    ),
    "535.161, in a container that has a MIG device of it": (
        f"0, NVIDIA A100-SXM4-80GB, {A}, [Insufficient Permissions],"
        " [Insufficient Permissions], P0\n",
        [GpuFact("NVIDIA A100-SXM4-80GB", 0, 0, A)],
    ),
    "550.54": (
        f"0, NVIDIA GH200 480GB, {A}, 97871, 565, P0\n",
        [GpuFact("NVIDIA GH200 480GB", 97871 * MIB, 0, A, 565 * MIB)],
    ),
    "570.124, MIG is on": (
        f"0, NVIDIA H100 PCIe, {A}, 81559, 87, P0\n",
        [GpuFact("NVIDIA H100 PCIe", 81559 * MIB, 0, A, 87 * MIB)],
    ),
    "580.126, memory that is the processor's": (
        f"0, NVIDIA GB10, {A}, [N/A], [N/A], P8\n",
        [GpuFact("NVIDIA GB10", 7, 0, A)],
    ),
    "without brackets": (
        f"0, Orin (nvgpu), {A}, N/A, N/A, N/A\n",
        [GpuFact("Orin (nvgpu)", 7, 0, A)],
    ),
}


@pytest.mark.parametrize("driver", GOOD)
def test_gpus(driver: str) -> None:
    said, gpus = GOOD[driver]
    assert parse_gpus(said, shared_memory=7) == Gpus(tuple(gpus))


LOST = "Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error"
FIRST = f"0, NVIDIA A30, {A}, 24576, 0, P0\n"
THIRD = f"2, NVIDIA A30, {C}, 24576, 17, P0\n"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (f"{FIRST}{LOST}\n{THIRD}", LOST),
        (f"{LOST}\n{FIRST}{THIRD}", LOST),
        (
            f"{FIRST}1, [GPU is lost], {B}, [GPU is lost], [GPU is lost], [GPU is lost]\n{THIRD}",
            None,
        ),
        # Its memory may still be told.
        (f"{FIRST}1, NVIDIA A30, {B}, 24576, 0, [GPU requires reset]\n{THIRD}", None),
        (f"{FIRST}1, NVIDIA A30, {B}, [Unknown Error], [Unknown Error], P0\n{THIRD}", None),
        ("WARNING: infoROM is corrupted at gpu 0000:5E:00.0\n" + FIRST + THIRD, None),
    ],
)
def test_one_that_is_lost_leaves_the_others_their_numbers(said: str, problem: str | None) -> None:
    found = parse_gpus(said)
    assert [(gpu.number, gpu.uuid) for gpu in found.found] == [(0, A), (2, C)]
    assert found.problem
    assert problem is None or found.problem == problem


@pytest.mark.parametrize(
    "said",
    [
        "No devices were found\n",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure"
        " that the latest NVIDIA driver is installed and running.\n",
        "Failed to initialize NVML: Driver/library version mismatch\n"
        "NVML library version: 535.161\n",
        "Failed to initialize NVML: Insufficient Permissions\n",
        f"{LOST}\n",
        "Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost.  Reboot the"
        " system to recover this GPU\n",
        "nvidia-smi does not answer\n",
        "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.\n",
    ],
)
def test_none_and_why(said: str) -> None:
    assert parse_gpus(said) == Gpus((), said.splitlines()[0])


def test_nothing() -> None:
    assert parse_gpus("") == Gpus()


@given(st.text())
def test_garbage_is_no_error(said: str) -> None:
    parse_gpus(said)
