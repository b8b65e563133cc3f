"""Docker and Podman as their commands have them: where the two differ. Data, and pure functions."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

# What a job asks of an image, as assignments and functions of a shell. Whatever may stand in an
# image's configuration is quoted: `split` and `join` are functions of both engines' templates,
# https://docs.docker.com/engine/cli/formatting/
_QUOTED = "'{{{{join (split {0} \"'\") \"'\\\\''\"}}}}'"
FACTS = "\n".join(
    (
        # Written so plainly, Podman knows it as well.
        "image_id={{.Id}}",
        "image_digest={{with .RepoDigests}}" + _QUOTED.format("(index . 0)") + "{{end}}",
        "image_platform=" + _QUOTED.format(".Os") + "/" + _QUOTED.format(".Architecture"),
        "image_user=" + _QUOTED.format(".Config.User"),
        'image_env() { "$@"{{range .Config.Env}} ' + _QUOTED.format(".") + "{{end}}; }",
        'image_argv() { "$@"{{range .Config.Entrypoint}} '
        + _QUOTED.format(".")
        + "{{end}}{{range .Config.Cmd}} "
        + _QUOTED.format(".")
        + "{{end}}; }",
    )
)


class Client(msgspec.Struct, frozen=True):
    """One engine's command. Where a value has `{}`, what is meant goes there."""

    name: str
    product: str  # as people call it
    install: str  # where it comes from
    run: tuple[str, ...]  # options of `run` that only this engine needs
    removal: bool  # whether it removes a container by itself at no cost, and with no one running
    remove: tuple[str, ...]  # removes a container, its processes and its anonymous volumes, at once
    pull: tuple[str, ...]  # pulls with the credentials in the folder {}
    gpus: str  # the options, for a shell, that hand in the GPUs that gpus.sh has chosen
    hub: str  # what its credentials file calls Docker Hub
    environment: tuple[str, ...]  # names or NAME_* of the variables that lead it to its engine


DOCKER = Client(
    name="docker",
    product="Docker",
    install="https://docs.docker.com/engine/install",
    # tini, which --init puts in front, then passes signals on to all of its child's group.
    run=("--env", "TINI_KILL_PROCESS_GROUP=1"),
    # Its daemon would do so when it starts again, too, even if the container outlived it.
    removal=False,
    remove=("rm", "--force", "--volumes"),
    pull=("--config", "{}", "pull"),
    # The quotes inside belong to the value, which is CSV to Docker.
    gpus='--gpus "\\"device=$gpus\\""',
    hub="https://index.docker.io/v1/",
    environment=("DOCKER_*", "SSH_AUTH_SOCK"),
)
PODMAN = Client(
    name="podman",
    product="Podman",
    install="https://podman.io/docs/installation",
    run=(),
    removal=True,
    remove=("rm", "--force", "--volumes", "--time", "0"),
    pull=("pull", "--authfile", "{}/config.json"),
    gpus="$(gpu_devices)",
    hub="docker.io",
    environment=("CONTAINER*", "REGISTRY*", "STORAGE_*", "DBUS_SESSION_BUS_ADDRESS"),
)
CLIENTS = {client.name: client for client in (DOCKER, PODMAN)}


def registry_of(image: str) -> str | None:
    """`HOST[:PORT]` of an image's name; None is Docker Hub.

    The first part of a name is a registry if it looks like a host; the reference format says so:
    https://pkg.go.dev/github.com/distribution/reference
    """
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first
    return None


def credentials(client: Client, image: str, username: str, password: str) -> str:
    """The content of the file that both engines read credentials from."""
    import base64
    import json

    registry = registry_of(image)
    if registry is None or registry in ("docker.io", "index.docker.io"):
        registry = client.hub
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    return json.dumps({"auths": {registry: {"auth": auth}}})


def environment_of(client: Client, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that lead the client to the engine that the user means. Pure."""
    exact = {name for name in client.environment if not name.endswith("*")}
    starts = tuple(name[:-1] for name in client.environment if name.endswith("*"))
    return {k: v for k, v in environ.items() if k in exact or k.startswith((*starts, "XDG_"))}


def explain(client: Client, image: str, text: str, *, known: bool) -> str:
    """What a client that failed said, as a sentence for people.

    `known`: it had credentials for the image's registry.
    """
    said = text.lower()
    registry = registry_of(image) or "Docker Hub"
    for words, sentence in _SENTENCES:
        if any(word in said for word in words):
            if sentence == "auth":
                return _refused(image, registry, known=known)
            return sentence.format(image=image, registry=registry, product=client.product)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "it says nothing"
    return f"{client.product} could not start {image}: {last}"


def explain_commit(client: Client, text: str) -> str:
    """What a client said that could not make the image of a build, as a sentence for people."""
    said = text.lower()
    if any(word in said for word in _FULL):
        return (
            f"the disk of {client.product} is full: the image of the build could not be put there"
        )
    if any(word in said for word in _SILENT):
        return f"{client.product} did not answer when the image of the build was to be made"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "it says nothing"
    return f"{client.product} could not make the image of the build: {last}"


def _refused(image: str, registry: str, *, known: bool) -> str:
    if known:
        return f"{registry} refused the username or password of registry_auth for {image}"
    return (
        f"{registry} gives {image} only to those it knows, or has no such image: see registry_auth"
    )


_FULL = ("no space left on device", "disk quota exceeded")
_SILENT = (
    "cannot connect to the docker daemon",
    "error during connect",
    "connection refused to podman",
    "dial unix",
    "cannot connect to podman",
)
# In the order looked at. Registries and engines tell by text, whatever the HTTP status.
_SENTENCES: tuple[tuple[tuple[str, ...], str], ...] = (
    (_FULL, "the disk of {product} is full: {image} could not be put there"),
    (_SILENT, "{product} does not answer"),
    (("permission denied while trying to connect",), "{product} does not let this user use it"),
    (
        ("toomanyrequests", "too many requests", "rate limit"),
        "{registry} gives out nothing more for now (rate limit); try later, or use registry_auth",
    ),
    (
        (
            "unauthorized",
            "authentication required",
            "no basic auth",
            "denied",
            "incorrect username or password",
            "invalid username/password",
        ),
        "auth",
    ),
    (
        (
            "no matching manifest",
            "no image found in image index",
            "no image found in manifest list",
            "does not match the specified platform",
        ),
        "there is no {image} for the CPU of this machine",
    ),
    (
        ("exec format error", "exec user process caused"),
        "what {image} starts is not for the CPU of this machine, or no program",
    ),
    (
        (
            "no such host",
            "server misbehaving",
            "connection refused",
            "i/o timeout",
            "network is unreachable",
            "no route to host",
            "deadline exceeded",
            "client.timeout",
            "temporary failure in name resolution",
            "tls: ",
            "x509",
            "connection reset",
            "http response to https client",
        ),
        "the registry of {image} ({registry}) cannot be reached",
    ),
    (
        (
            "manifest unknown",
            "not found: manifest",
            "name unknown",
            "repository name not known",
            "manifest for ",
            "not found",
            "no such image",
            "image not known",
            "does not exist",
            "short-name",
            "did not resolve to an alias",
        ),
        "there is no image {image}",
    ),
    (
        (
            "could not select device driver",
            "unresolvable cdi devices",
            "nvidia-container-cli",
            "failed to inject cdi",
        ),
        "{product} cannot hand out GPUs here: install the NVIDIA Container Toolkit",
    ),
    (("invalid reference format",), "{image} is no name of an image"),
    (("docker-init", "catatonit"), "{product} lacks its init program: install tini (or catatonit)"),
)
