"""`ports`: an app of the run is reached at 127.0.0.1, and what is taken is said before."""

from __future__ import annotations

import os
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import RunTask, Task, free_port, is_open
from tests.support import Dstack, wait_for

SERVER = "python -m http.server --bind {host} {port}"


def page(port: int, *, timeout: float = 60.0) -> str:
    """What the app answers, once it does."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/page.txt", timeout=20) as answer:
                content: bytes = answer.read()
                return content.decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def server(task: Task, port: int, mapping: str, *, host: str = "0.0.0.0", text: str = "x") -> Path:
    return task(
        f"ports: ['{mapping}']\ncommands: ['{SERVER.format(host=host, port=port)}']",
        name=f"server-{port}",
        files={"page.txt": text},
    )


@contextmanager
def attached(dstack: Dstack, folder: Path, name: str, *args: str) -> Iterator[Path]:
    """The run, attached; the file that its shown output goes to. It is stopped at the end."""
    output, talk = folder / "output", folder / "talk"
    with output.open("wb") as out, talk.open("wb") as err:
        running = dstack.start("run", folder, "-n", name, *args, stdout=out, stderr=err)
    try:
        yield output
    finally:
        dstack("stop", "-x", name)
        running.wait(60)


def test_another_local_port_leads_to_the_app(dstack: Dstack, task: Task) -> None:
    inside, local = free_port(), free_port()
    folder = server(task, inside, f"{local}:{inside}", text="through the port")
    with attached(dstack, folder, "web") as output:
        assert page(local) == "through the port"
        assert dstack.run_of("web")["ports"] == [{"run": inside, "local": local}]
        shown = wait_for(lambda: re.search("Serving.*\n", output.read_text()), "output").group()
        assert f"http://127.0.0.1:{local}/" in shown or f"http://localhost:{local}/" in shown
        assert f"http://0.0.0.0:{inside}" not in shown
    # What is kept is what the app printed.
    assert f"http://0.0.0.0:{inside}/" in dstack.ok("logs", "web")
    assert not is_open(local)


def test_the_same_port(dstack: Dstack, task: Task) -> None:
    port = free_port()
    with attached(dstack, server(task, port, str(port), host="127.0.0.1"), "web"):
        assert page(port) == "x"


@pytest.mark.parametrize("same", [True, False])
def test_an_app_that_listens_on_ipv6_alone(dstack: Dstack, task: Task, same: bool) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    inside = free_port()
    local = inside if same else free_port()
    folder = server(task, inside, f"{local}:{inside}", host="::1", text="six")
    with attached(dstack, folder, "web"):
        assert page(local) == "six"


def test_a_taken_port_is_an_error_before_anything_starts(dstack: Dstack, task: Task) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        folder = task(f"ports: [{port}]\ncommands: [echo never]")
        done = dstack("run", folder)
        assert (done.returncode, done.stdout) == (125, "")
        assert f"local port {port} is taken" in done.stderr
        assert f'"*:{port}"' in done.stderr
        assert dstack.ps("-a") == []


def test_a_star_takes_the_next_free_port(dstack: Dstack, task: Task) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        folder = task(f"ports: ['*:{port}']\ncommands: [echo fine]\nname: star")
        assert dstack.ok("run", folder) == "fine\n"
    (chosen,) = dstack.run_of("star")["ports"]
    assert chosen["run"] == port
    assert chosen["local"] > port


def test_another_program_on_the_runs_port_is_not_shown(dstack: Dstack, task: Task) -> None:
    inside, local = free_port(), free_port()
    wait = "echo up; until [ -e go ]; do sleep 0.05; done"
    folder = task(
        f"ports: ['{local}:{inside}']\n"
        f"commands: ['{wait}; exec {SERVER.format(host='0.0.0.0', port=inside)}']",
        files={"page.txt": "the run's"},
    )
    with attached(dstack, folder, "web") as output:
        wait_for(lambda: "up" in output.read_text(), "the run")
        with socket.create_server(("127.0.0.1", inside)) as other:
            other.settimeout(0.1)
            client = socket.create_connection(("127.0.0.1", local), timeout=60)
            # It waits for the app of the run, in vain.
            with client, pytest.raises(ConnectionResetError):
                client.recv(1)
            with pytest.raises(TimeoutError):
                other.accept()
        said = f"port {inside} of this machine belongs to another process (python"
        wait_for(lambda: said in (folder / "talk").read_text(), "the word about it")
        (code,) = dstack.home.glob("runs/*/code")
        (code / "go").touch()
        assert page(local) == "the run's"
        assert (folder / "talk").read_text().count(said) == 1


def test_two_runs_beside_each_other(dstack: Dstack, task: Task) -> None:
    one, two = free_port(), free_port()
    with (
        attached(dstack, server(task, one, str(one), text="one"), "first"),
        attached(dstack, server(task, two, f"*:{two}", text="two"), "second"),
    ):
        assert page(one) == "one"
        assert page(two) == "two"
        third = task(f"ports: [{one}]\ncommands: [echo never]")
        done = dstack("run", third)
        assert (done.returncode, done.stdout) == (125, "")
        assert f"local port {one} is promised to the active run first" in done.stderr


def test_ports_of_the_command_line(dstack: Dstack, task: Task) -> None:
    inside, local = free_port(), free_port()
    folder = server(task, inside, str(inside))
    with attached(dstack, folder, "web", "-p", f"{local}:{inside}"):
        assert page(local) == "x"


def test_attach_forwards_and_detached_runs_do_not(dstack: Dstack, task: Task) -> None:
    inside, local = free_port(), free_port()
    begun = dstack("run", server(task, inside, f"{local}:{inside}"), "-n", "web", "-d")
    assert f"http://127.0.0.1:{local} while you watch it: dstack attach web" in begun.stderr
    assert page(inside) == "x"
    assert not is_open(local)
    watching = dstack.start("attach", "web")
    assert page(local) == "x"
    dstack.ok("stop", "-x", "web")
    watching.communicate(timeout=60)
    assert watching.returncode == 137


def test_attach_shows_the_output_though_the_port_is_taken_meanwhile(
    dstack: Dstack, task: Task
) -> None:
    inside, local = free_port(), free_port()
    text = "commands: [echo begun, 'while [ ! -e go ]; do sleep 0.05; done']"
    dstack.ok("run", task(f"ports: ['{local}:{inside}']\n{text}"), "-n", "web", "-d")
    with socket.create_server(("127.0.0.1", local)):
        watching = dstack.start("attach", "web")
        assert watching.stdout is not None
        assert watching.stdout.readline() == b"begun\n"
        (code,) = dstack.home.glob("runs/*/code")
        (code / "go").touch()
        _, talk = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert f"local port {local} is taken by python".encode() in talk
    assert f"(process {os.getpid()}): no port of web is forwarded".encode() in talk


@pytest.mark.parametrize("ports", ["[0]", "[65536]", "[8000, 8000]", "['8000:']", "[x]", "[*:80]"])
def test_wrong_ports_are_errors_of_the_file(run_task: RunTask, ports: str) -> None:
    done = run_task(f"ports: {ports}\ncommands: [echo never]")
    assert done.returncode == 2
    assert ".dstack.yml:2:" in done.stderr
    assert "Traceback" not in done.stderr
