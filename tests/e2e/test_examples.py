"""Every example runs as it is, from the repository's root, as its README says."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import Dstack, wait_for

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/.dstack.yml"))
INSTALL = 400.0  # seconds that fetching an example's packages may take

ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):(\d+)")


@pytest.fixture
def here(dstack: Dstack) -> Dstack:
    dstack.cwd = ROOT
    return dstack


@contextmanager
def served(dstack: Dstack, example: str, tmp_path: Path, *args: str) -> Iterator[str]:
    """Run a web example attached; the address that its output names; stopped at the end."""
    output, talk = tmp_path / "output", tmp_path / "talk"
    with output.open("wb") as out, talk.open("wb") as err:
        running = dstack.start(
            "run", f"examples/{example}", "-n", example, *args, stdout=out, stderr=err
        )

    def address() -> str | None:
        if running.poll() is not None:
            text = output.read_text() + talk.read_text()
            raise AssertionError(f"{example} ended with {running.returncode}:\n{text}")
        found = ADDRESS.search(output.read_text())
        return found.group(0) if found else None

    try:
        yield wait_for(address, f"{example} to print its address", timeout=INSTALL)
    finally:
        dstack("stop", example)
        running.wait(60)
    assert dstack.run_of(example)["status"] == "stopped"


def fetch(url: str, *, timeout: float = 60.0) -> str:
    """The page, once the app answers (it may print its address before it listens)."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                page: bytes = answer.read()
                return page.decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_every_example_is_listed_and_explained() -> None:
    listed = re.findall(
        r"^\| \[([a-z-]+)\]", (ROOT / "examples/README.md").read_text(), re.MULTILINE
    )
    assert sorted(listed) == EXAMPLES
    for name in EXAMPLES:
        assert f"dstack run examples/{name}" in (ROOT / "examples" / name / "README.md").read_text()


def test_every_example_is_valid(here: Dstack) -> None:
    here.ok("validate", *(f"examples/{name}/.dstack.yml" for name in EXAMPLES))


def test_hello(here: Dstack) -> None:
    lines = here.ok("run", "examples/hello", "-n", "greeter").splitlines()
    assert lines[0] == "Hello from greeter"
    assert re.fullmatch(r"Python 3\.\d+\.\d+\S*", lines[1])
    assert len(lines) == 2


def test_digits(here: Dstack) -> None:
    command = ("run", "examples/digits", "--", "--epochs", "20")
    out = here.ok(*command, timeout=INSTALL)
    epochs = re.findall(r"^epoch +(\d+)  loss ([\d.]+)  accuracy ([\d.]+)$", out, re.MULTILINE)
    assert [int(number) for number, _, _ in epochs] == list(range(1, 21))
    assert float(epochs[-1][1]) < float(epochs[0][1])
    assert float(epochs[-1][2]) > 0.9


def test_prepared(here: Dstack) -> None:
    here.ok("build", "examples/prepared", timeout=INSTALL)
    assert here.ok("run", "examples/prepared") == "sum of squares: 338350\n"
    assert here.ok("run", "examples/prepared", "--", "3") == "sum of squares: 14\n"
    (build,) = json.loads(here.ok("builds", "--json"))
    assert {"examples/prepared/requirements.txt", "examples/prepared/prepare.py"} <= set(
        build["files"]
    )
    assert "examples/prepared/sum.py" not in build["files"]


def test_web_app(here: Dstack, tmp_path: Path) -> None:
    with served(here, "web-app", tmp_path) as address:
        assert "<h1>Hello from web-app</h1><p>Visit number 1</p>" in fetch(address)
        assert "Visit number 2" in fetch(address)


def test_tensorboard_stands_beside_the_training(here: Dstack, tmp_path: Path) -> None:
    with served(here, "tensorboard", tmp_path) as address:
        assert "<title>TensorBoard</title>" in fetch(address)
        wait_for(lambda: "." in fetch(f"{address}/data/runs"), "the training's log to be read")


def test_tensorboard_ends_with_the_training(here: Dstack) -> None:
    command = ("run", "examples/tensorboard", "--", "--steps", "20", "--pause", "0.01")
    assert "step 20  loss" in here.ok(*command, timeout=INSTALL)


def test_notebook(here: Dstack, tmp_path: Path) -> None:
    with served(here, "notebook", tmp_path) as address:
        assert '"hello.ipynb"' in fetch(f"{address}/api/contents?token=change-me")


def test_train_and_serve(here: Dstack, tmp_path: Path) -> None:
    with served(here, "train-and-serve", tmp_path) as address:
        assert fetch(address).startswith("The ")


def test_long_job_goes_on_where_the_last_run_ended(here: Dstack) -> None:
    slow = ("--", "--steps", "1000", "--pause", "0.05")
    here.ok("run", "examples/long-job", "-n", "first", "-d", *slow)
    wait_for(lambda: "step 3 of" in here.ok("logs", "first"), "three steps", timeout=60)
    here.ok("stop", "first")
    (reached,) = re.findall(r"step (\d+) of \d+, total \d+\n\Z", here.ok("logs", "first"))
    again = ("--", "--steps", str(int(reached) + 4), "--pause", "0")
    out = here.ok("run", "examples/long-job", "-n", "second", *again)
    # The step whose line was not printed any more may have been recorded.
    assert re.match(rf"attempt 1, going on from step ({reached}|{int(reached) + 1})\n", out)
    last = int(reached) + 4
    assert out.endswith(f"done: {last * (last + 1) // 2}\n")


def test_long_job_is_tried_again_after_a_failure(here: Dstack) -> None:
    args = ("--", "--steps", "6", "--pause", "0", "--fail-at", "4")
    out = here.ok("run", "examples/long-job", "-n", "retried", *args)
    assert "step 4 failed" in out
    assert "attempt 2, going on from step 4" in out
    assert out.endswith("done: 21\n")
