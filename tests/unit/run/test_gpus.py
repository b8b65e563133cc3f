"""Which GPUs of a place a run may have."""

from __future__ import annotations

import pytest

from dstack.config.shapes import Gpu, Range
from dstack.errors import NoCapacity
from dstack.run.plan import Offer, fitting_gpus

GB = 1 << 30
THERE = ((0, "NVIDIA A100-SXM4-40GB", 40 * GB), (2, "Tesla T4", 15 * GB), (3, "NVIDIA GB10", 0))


def offer(**more: object) -> Offer:
    fixed = {"backend": "box", "engine": "process", "cpus": 4, "memory": GB, "disk": GB}
    return Offer(**{**fixed, **more})  # type: ignore[arg-type]  # what the test says


def test_their_own_numbers_count_whichever_are_lost() -> None:
    assert fitting_gpus(Gpu(), offer(gpus=THERE)) == (0, 2, 3)
    assert fitting_gpus(Gpu(name="T4"), offer(gpus=THERE)) == (2,)
    assert fitting_gpus(Gpu(memory=Range(16 * GB, None)), offer(gpus=THERE)) == (0,)
    assert fitting_gpus(Gpu(count=Range(0, 0)), offer()) == ()


def test_what_is_wrong_with_the_others_is_told() -> None:
    asked = Gpu(count=Range(4, 4))
    with pytest.raises(NoCapacity, match=r"4 GPUs; box has .*Tesla T4 15GB, .*unknown memory$"):
        fitting_gpus(asked, offer(gpus=THERE))
    with pytest.raises(NoCapacity, match=r"box has no GPU \(No devices were found\)$"):
        fitting_gpus(asked, offer(gpus_why="No devices were found"))
