"""What the engines' commands are told, and what becomes of what they say."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

from dstack.config.shapes import (
    EnvVar,
    Port,
    Range,
    RegistryAuth,
    Resources,
    Secret,
    Text,
    Variable,
)
from dstack.engines.addresses import find_address
from dstack.engines.clients import (
    CLIENTS,
    DOCKER,
    PODMAN,
    Client,
    credentials,
    environment_of,
    explain,
    explain_commit,
    registry_of,
)
from dstack.engines.container_script import Inside, interpreter, keys, render_box, render_job, words
from dstack.engines.docker_socket import facts_of
from dstack.engines.podman_store import settings_of
from dstack.engines.progress import layers
from dstack.engines.render import Places
from dstack.run.model import Plan, Run

GOLDEN = Path(__file__).parents[2] / "golden" / "job"
PLACES = Places(
    run="/home/me/.dstack/runs/r1",
    job="/home/me/.dstack/runs/r1/2",
    cache="/home/me/.dstack/cache",
    envs="",
    uv="",
)
FULL = Plan(
    name="brave-fox",
    project="/home/me/project",
    workdir="sub",
    file="sub/.dstack.yml",
    backend="local",
    engine="docker",
    commands=("echo 'it''s'\n", "exit 3"),
    setup=("pip install x",),
    env=(
        EnvVar("PATH", (Text("/bin/my:"), Variable("PATH"))),
        EnvVar("TOKEN", (Text("a'b "), Secret("KEY"))),
    ),
    ports=(Port(8000, 3333),),
    image="registry.example.com/x:1",
    entrypoint=("/bin/bash", "-i", "-c"),
    registry_auth=RegistryAuth((Text("me"),), (Secret("PW"),)),
    home_dir="/home/x",
    pull="always",
    client="/usr/bin/docker",
    gpus=(0, 2),
    cache=("data", "~/.cache/x", "/mnt/big", "a,b"),
    cache_key="k1",
    resources=Resources(cpu=Range(1, 1.5), memory=Range(None, 1 << 30), shm_size=1 << 20),
    max_duration=3600,
    base_env=(("PATH", "/usr/bin:/bin"), ("DOCKER_HOST", "unix:///x")),
)
BARE = Plan(
    name="brave-fox",
    project="/p",
    workdir=".",
    file=".dstack.yml",
    backend="local",
    engine="podman",
    image="busybox",
    client="/usr/bin/podman",
    gpus=(1,),
)


def texts(plan: Plan) -> tuple[str, str]:
    run = Run(id="r1", name="brave-fox", plan=plan, status="submitted", submitted_at=0.0)
    client = CLIENTS[plan.engine]
    inside = Inside(client, "0123abcd", "/home/me/.dstack/images", "# the rest\n", "# the rest\n")
    return render_job(run, 2, PLACES, inside), render_box(run, 2, inside)


@pytest.mark.parametrize(("name", "plan"), [("docker", FULL), ("podman", BARE)])
def test_golden(name: str, plan: Plan) -> None:
    for kind, text in zip(("job", "box"), texts(plan), strict=True):
        golden = GOLDEN / f"{name}-{kind}.sh"
        if os.environ.get("DSTACK_WRITE_GOLDEN"):
            golden.write_text(text)
        assert text == golden.read_text()
        subprocess.run(["/bin/sh", "-n"], input=text.encode(), check=True)


def test_the_password_is_a_key_of_its_own() -> None:
    assert keys(FULL) == ("secret:PW",)
    assert keys(BARE) == ()
    assert "PW" not in "".join(texts(FULL))


def test_interpreters() -> None:
    assert interpreter(("bash", "-c"), ["a", "b"])[2].endswith(". /.dstack/box.sh")
    assert interpreter(("conda", "run", "/bin/sh", "-c"), ["a"])[-1].endswith("box.sh")
    assert interpreter(("python3", "-c"), ["a", "b"]) == ["python3", "-c", "a\nb"]
    assert words(["a b", "c", "", "it's"]) == "'a b' c '' 'it'\\''s'"


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("python", None),
        ("team/python:3", None),
        ("ghcr.io/x/y@sha256:ab", "ghcr.io"),
        ("localhost/x", "localhost"),
        ("host:5000/x:1", "host:5000"),
        ("python:3.11", None),
    ],
)
def test_registries(image: str, registry: str | None) -> None:
    assert registry_of(image) == registry


def test_credentials() -> None:
    found = json.loads(credentials(DOCKER, "team/x", "me", "p:w"))
    ((registry, entry),) = found["auths"].items()
    assert registry == "https://index.docker.io/v1/"
    assert b64decode(entry["auth"]) == b"me:p:w"
    assert list(json.loads(credentials(PODMAN, "team/x", "me", "p"))["auths"]) == ["docker.io"]
    assert list(json.loads(credentials(PODMAN, "h:5/x", "me", "p"))["auths"]) == ["h:5"]


def test_gpus_and_environment() -> None:
    asked = "gpus=0,2; gpu_devices() { echo --device nvidia.com/gpu=0; }; printf '[%s]' "
    said = [subprocess.getoutput(asked + client.gpus) for client in (DOCKER, PODMAN)]
    assert said == ['[--gpus]["device=0,2"]', "[--device][nvidia.com/gpu=0]"]
    environ = {"DOCKER_HOST": "d", "CONTAINERS_CONF": "c", "XDG_RUNTIME_DIR": "x", "AWS_KEY": "a"}
    assert environment_of(DOCKER, environ) == {"DOCKER_HOST": "d", "XDG_RUNTIME_DIR": "x"}
    assert environment_of(PODMAN, environ) == {"CONTAINERS_CONF": "c", "XDG_RUNTIME_DIR": "x"}


IMAGE = "r.io/a/b:1"


@pytest.mark.parametrize(
    ("client", "said", "sentence"),
    [
        (DOCKER, 'Get "https://r.io/v2/": dial tcp: lookup r.io: no such host',
         "the registry of r.io/a/b:1 (r.io) cannot be reached"),
        (DOCKER, "Error response from daemon: manifest for r.io/a/b:1 not found: manifest unknown",
         "there is no image r.io/a/b:1"),
        (PODMAN, "reading manifest 1 in r.io/a/b: manifest unknown: manifest unknown",
         "there is no image r.io/a/b:1"),
        (PODMAN, "Error: r.io/a/b:1: image not known", "there is no image r.io/a/b:1"),
        (DOCKER, "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
         "Docker does not answer"),
        (DOCKER, "write /x: no space left on device",
         "the disk of Docker is full: r.io/a/b:1 could not be put there"),
        (DOCKER, "no matching manifest for linux/arm64/v8 in the manifest list entries",
         "there is no r.io/a/b:1 for the CPU of this machine"),
        (DOCKER, "toomanyrequests: You have reached your pull rate limit.",
         "r.io gives out nothing more for now (rate limit); try later, or use registry_auth"),
        (DOCKER, "could not select device driver with capabilities: [[gpu]]",
         "Docker cannot hand out GPUs here: install the NVIDIA Container Toolkit"),
        (DOCKER, "docker: invalid reference format.", "r.io/a/b:1 is no name of an image"),
        (PODMAN, "one\nError: something new\n",
         "Podman could not start r.io/a/b:1: Error: something new"),
        (PODMAN, "", "Podman could not start r.io/a/b:1: it says nothing"),
    ],
)  # fmt: skip
def test_what_a_client_said(client: Client, said: str, sentence: str) -> None:
    assert explain(client, IMAGE, said, known=False) == sentence


@pytest.mark.parametrize(
    ("client", "said", "sentence"),
    [
        (
            DOCKER,
            "Error response from daemon: ... write /large: no space left on device\n",
            "the disk of Docker is full: the image of the build could not be put there",
        ),
        (
            PODMAN,
            "Error: committing container: disk quota exceeded",
            "the disk of Podman is full: the image of the build could not be put there",
        ),
        (
            DOCKER,
            "Cannot connect to the Docker daemon at unix:///x. Is it running?",
            "Docker did not answer when the image of the build was to be made",
        ),
        (
            PODMAN,
            "one\nError: something else\n",
            "Podman could not make the image of the build: Error: something else",
        ),
        (DOCKER, "", "Docker could not make the image of the build: it says nothing"),
    ],
)
def test_what_a_commit_that_failed_said(client: Client, said: str, sentence: str) -> None:
    assert explain_commit(client, said) == sentence


@pytest.mark.parametrize(
    "said",
    [
        "Error response from daemon: Head https://r.io/v2/: no basic auth credentials",
        "unauthorized: authentication required",
        "pull access denied for a/b, repository does not exist or may require 'docker login'",
        "Error: initializing source: unable to retrieve auth token: invalid username/password",
    ],
)
def test_refusals(said: str) -> None:
    assert "refused the username or password" in explain(DOCKER, IMAGE, said, known=True)
    assert explain(DOCKER, IMAGE, said, known=False).endswith("see registry_auth")


def test_facts_are_for_a_shell_whatever_an_image_says() -> None:
    odd = "it's $(touch /tmp/x)\nline"
    about = {
        "Id": "sha256:1",
        "Os": "linux",
        "Architecture": "amd64",
        "Config": {"Env": [f"A={odd}"], "Entrypoint": [odd], "Cmd": ["x"], "User": odd},
    }
    script = facts_of(about) + 'image_argv printf "%s|"; printf "%s|" "$image_user"'
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{odd}|x|{odd}|"
    empty = facts_of({"Id": "sha256:1", "Os": "linux", "Architecture": "amd64", "Config": None})
    done = subprocess.run(
        ["/bin/sh", "-c", empty + "image_argv echo; image_env echo"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "\n\n"


def test_layers() -> None:
    docker = (
        "1: Pulling from a/b\n0a1b: Pulling fs layer\n2c: Pulling fs layer\n3d: Already exists\n"
        "0a1b: Verifying Checksum\n0a1b: Download complete\n0a1b: Pull complete\n"
    )
    assert layers(docker) == (2, 3)
    podman = (
        "Trying to pull r.io/a/b:1...\nGetting image source signatures\n"
        "Copying blob sha256:0123456789abcdef\nCopying blob sha256:fedcba9876543210\n"
        "Copying blob 0123456789ab done\nCopying config sha256:aa\n"
    )
    assert layers(podman) == (1, 2)
    assert layers("") == (0, 0)


def test_addresses() -> None:
    settings = {
        "IPAddress": "10.1.2.3",
        "Gateway": "127.0.0.1",  # an address of this machine, wherever this runs
        "Ports": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}]},
    }
    assert find_address(json.dumps(settings).encode(), 80) == ("10.1.2.3", 80)
    settings["Gateway"] = "203.0.113.1"
    assert find_address(json.dumps(settings).encode(), 80) == ("127.0.0.1", 49153)
    assert find_address(json.dumps(settings).encode(), 81) is None
    assert find_address(b"garbage", 80) is None


def test_the_settings_of_podman() -> None:
    named = {"CONTAINERS_STORAGE_CONF": "/s", "CONTAINERS_CONF": "/c", "HOME": "/h"}
    found = [str(path) for path in settings_of(named)]
    assert found[:2] == ["/s", "/c"]
    assert "/etc/containers/registries.conf.d" in found
    assert "/h/.config/containers/storage.conf" in found
    assert Path("/x/containers/storage.conf") in settings_of({"XDG_CONFIG_HOME": "/x"})
