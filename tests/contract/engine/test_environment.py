"""The Python environment, `setup`, `cache` and the limits, with the real uv and real cgroups."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dstack.config.shapes import EnvVar, Range, Resources, Secret

from .conftest import Bench

THIS = f"{sys.version_info[0]}.{sys.version_info[1]}"
OWN = {"python": THIS, "interpreter": os.path.realpath(sys._base_executable)}  # type: ignore[attr-defined]


def test_python_and_pip_are_those_of_the_run(bench: Bench) -> None:
    done, log = bench.do(
        "command -v python pip uv",
        'python -c "import sys; print(sys.prefix, sys.version_info[:2])"',
        "pip --version | cut -d' ' -f1",
        "python -m pip --version | cut -d' ' -f1",
        "uv pip list -q >/dev/null && echo uv works",
        **OWN,
    )
    assert done.code == 0, log
    env = next(bench.home.runs.iterdir()) / "env"
    assert log.splitlines() == [
        f"{env}/bin/python",
        f"{env}/bin/pip",
        f"{env}/bin/uv",
        f"{env} {sys.version_info[:2]}",
        "pip",
        "pip",
        "uv works",
    ]


def test_what_pip_installs_stays_in_the_run(quick: Bench) -> None:
    make = (
        "mkdir -p pkg && cd pkg && printf '%s\\n' '[project]' 'name = \"tiny\"' 'version = \"1\"' "
        "'[project.scripts]' 'tiny = \"tiny:main\"' >pyproject.toml && "
        "echo 'def main(): print(\"tiny runs\")' >tiny.py"
    )
    build = (
        "python - <<'X'\n"
        "import zipfile\n"
        "with zipfile.ZipFile('tiny-1-py3-none-any.whl', 'w') as z:\n"
        "    z.write('pkg/tiny.py', 'tiny.py')\n"
        "    d = 'tiny-1.dist-info/'\n"
        "    z.writestr(d + 'METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n')\n"
        "    z.writestr(d + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\n"
        "Root-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "    z.writestr(d + 'entry_points.txt', '[console_scripts]\\ntiny = tiny:main\\n')\n"
        "    z.writestr(d + 'RECORD', '')\n"
        "X"
    )
    install = "pip install -q --no-index --no-deps ./tiny-1-py3-none-any.whl"
    done, log = quick.do(f"({make})", build, install, "tiny", "head -1 $(command -v tiny)", **OWN)
    assert done.code == 0, log
    env = next(quick.home.runs.iterdir()) / "env"
    assert log.splitlines()[-2:] == ["tiny runs", f"#!{env}/bin/python"]
    done, log = quick.do("python -c 'import tiny' 2>&1 | tail -1", **OWN)
    assert "No module named" in log


def test_a_folder_with_odd_characters(tmp_path: Path) -> None:
    from dstack.engines.process import ProcessEngine
    from dstack.paths import Home

    from .conftest import finish

    bench = Bench(ProcessEngine(Home(tmp_path / "a b'c\"$x`é" / ("long" * 20)), grace=3))
    done, log = bench.do("pip --version | cut -d' ' -f1", "echo ok >kept/f", cache=("kept",), **OWN)
    assert (done.code, log) == (0, "pip\n"), done
    finish(bench)


def test_a_missing_interpreter_says_so(bench: Bench) -> None:
    done, _ = bench.do("echo never", python="3.9", interpreter="/nonexistent/python3.9")
    assert (done.code, done.reason, done.stage) == (125, "start_failed", "environment")
    assert done.detail == "Python 3.9 is no longer at /nonexistent/python3.9"


def test_what_cannot_be_fetched_lists_what_is_there(
    quick: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "none"))
    done, log = quick.do("echo never", python="3.14")
    assert (done.code, done.reason) == (125, "start_failed")
    assert done.detail is not None
    assert done.detail.startswith("Python 3.14 is not on this machine and uv could not fetch it")
    assert THIS in done.detail
    assert "never" not in log


def test_setup_runs_once_in_a_shell_of_its_own(bench: Bench) -> None:
    env = (EnvVar("KEY", (Secret("KEY"),)),)
    options = {"setup": ("export A=1; cd /", "echo setup $KEY"), "env": env, **OWN}
    values = {"secret:KEY": "v"}
    run_id = f"once{os.getpid()}"
    done, log = bench.do(
        "echo [$A] $KEY ${PWD##*/}; echo >made", values=values, run_id=run_id, **options
    )
    assert (done.code, log) == (0, "setup v\n[] v code\n")
    done, log = bench.do("ls made; echo again", values=values, run_id=run_id, attempt=2, **options)
    assert (done.code, log) == (0, "made\nagain\n")


def test_setup_that_fails_is_named_and_tried_again(bench: Bench) -> None:
    setup = ("true", "[ -e allow ] || exit 7")
    run_id = f"again{os.getpid()}"
    done, log = bench.do("echo never", setup=setup, run_id=run_id)
    assert (done.code, done.reason, done.stage, done.index) == (7, "setup_failed", "setup", 2)
    assert log == ""
    (bench.home.run(run_id) / "code" / "allow").touch()
    done, log = bench.do("echo now", setup=setup, run_id=run_id, attempt=2)
    assert (done.code, log) == (0, "now\n")


def test_cache(bench: Bench) -> None:
    kept = bench.home.root / "machine" / "deep"
    cache = ("data", "deep/er/", str(kept), "~/in-home")
    run_id = f"brings{os.getpid()}"  # jobs are found by it: others play this test, too
    run = bench.run("true", run_id=run_id, cache=cache, cache_key="k")
    brought = bench.home.run(run.id) / "code" / "data"
    brought.mkdir()
    (brought / "first").write_text("from the code")
    done, log = bench.do(
        "cat data/first; echo kept >data/f; echo deep >deep/er/f",
        f"echo abs >{kept}/f; ls -d ~/in-home",
        run_id=run_id,
        cache=cache,
        cache_key="k",
    )
    assert done.code == 0, log
    done, log = bench.do("cat data/first data/f deep/er/f; exit 4", cache=cache, cache_key="k")
    assert (done.code, log) == (4, "from the codekept\ndeep\n")
    done, log = bench.do("ls data deep/er", cache=cache, cache_key="other")
    assert (done.code, log) == (0, "data:\n\ndeep/er:\n")


def test_a_cache_that_cannot_be_made(quick: Bench) -> None:
    done, _ = quick.do("echo never", cache=("/proc/nothing",))
    assert (done.code, done.reason) == (125, "start_failed")
    assert done.detail == "the cache folder /proc/nothing cannot be made"


@pytest.fixture
def limits(quick: Bench) -> None:
    facts = quick.engine.facts(limits=True)
    if not facts.limits:
        assert facts.limits_why
        pytest.skip(facts.limits_why)


@pytest.mark.usefixtures("limits")
def test_memory(bench: Bench) -> None:
    eat = "python3 -c 'x = bytearray(300 << 20); print(len(x))'"
    small = Resources(memory=Range(64 << 20, 64 << 20))
    python = os.path.realpath(sys.executable)
    eat = eat.replace("python3", python)
    done, log = bench.do("echo go", eat, resources=small)
    assert (done.reason, done.oom, done.index) == ("oom", True, 2), (done, log)
    done, log = bench.do(f"{eat} || echo only a child", resources=small)
    assert (done.code, done.reason, done.oom) == (0, "completed", True)
    done, log = bench.do(eat, resources=Resources(memory=Range(64 << 20, 2 << 30)))
    assert (done.code, done.oom, log) == (0, False, f"{300 << 20}\n")
    done, log = bench.do(eat, resources=small, enforce=False)
    assert (done.code, done.oom) == (0, False)


@pytest.mark.usefixtures("limits")
def test_cpu(quick: Bench) -> None:
    spin = "import time; s = time.time(); c = time.process_time()\nwhile time.time() < s + 1: pass"
    show = "print((time.process_time() - c) / (time.time() - s))"
    python = os.path.realpath(sys.executable)
    done, log = quick.do(f"{python} -c '{spin}\n{show}'", resources=Resources(cpu=Range(0.2, 0.2)))
    assert done.code == 0, log
    assert float(log) < 0.4


def test_facts(quick: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.home.root.mkdir(parents=True)
    facts = quick.engine.facts(pythons=True)
    assert 1 <= facts.cpus <= (os.cpu_count() or 1)
    assert facts.memory > 64 << 20
    assert facts.disk > 0
    assert facts.fetch
    assert facts.pythons[THIS] == OWN["interpreter"]
    for path in facts.pythons.values():
        assert os.access(path, os.X_OK)
        assert "/shims/" not in path
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    assert not quick.engine.facts().fetch
    assert set(quick.engine.facts().pythons) == {THIS}
