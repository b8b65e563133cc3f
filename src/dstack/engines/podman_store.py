"""What Podman said about an image, kept until its store changes: a client's start costs 50 ms.

Podman has no daemon that could be asked. Its store writes `images.json` anew whenever an image
comes, goes or gets another name, and says in its settings where that file is; as long as all of
them are the same, so is the answer. https://github.com/containers/storage/blob/main/docs/

Only a shortcut. Whatever is unusual gives None, and job.sh asks with the client.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ..digest import digest
from ..errors import HostError
from ..hosts.base import File, Host
from .clients import FACTS, PODMAN, environment_of

_TIMEOUT = 10.0  # seconds
_STORE = "{{.Host.ServiceIsRemote}} {{.Store.GraphDriverName}} {{.Store.GraphRoot}}"
_KINDS = ("storage", "containers", "registries")
_LAYER = "{{.GraphDriver.Data.UpperDir}}\n"


class Kept(msgspec.Struct, frozen=True):
    """What is known for one environment. The digests are of files as they were before it was asked.

    `root` is the store's folder and `images` its list of images.
    """

    settings: str
    root: str
    images: str
    list_digest: str
    facts: Mapping[str, str]  # image: what clients.FACTS gave


def look_up(
    host: Host, folder: Path, client: str, image: str, environ: Mapping[str, str]
) -> str | None:
    """The facts of an image that is there; None: it is not there, or ask the client.

    `client` is the command, `environ` what is added to this process's environment, and `folder`
    is where answers are kept.
    """
    whole = {**os.environ, **environ}
    try:
        return _look_up(host, folder, client, image, whole)
    except (HostError, UnicodeDecodeError):
        return None


def image_id(facts: str) -> str:
    """The image's id, as it stands in its facts."""
    return facts.partition("\n")[0].removeprefix("image_id=")


def settings_of(environ: Mapping[str, str]) -> list[Path]:
    """The files and folders that say where the store is and what names mean; there or not. Pure.

    As containers-storage.conf(5), containers.conf(5) and containers-registries.conf(5) call them.
    """
    home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '')}/.config"
    folders = ("/usr/share/containers", "/etc/containers", f"{home}/containers")
    found = [environ.get(f"CONTAINERS_{kind.upper()}_CONF") for kind in _KINDS]
    found += [environ.get("CONTAINERS_CONF")]
    found += [
        f"{folder}/{kind}.conf{end}" for folder in folders for kind in _KINDS for end in ("", ".d")
    ]
    return [Path(each) for each in found if each]


def _look_up(
    host: Host, folder: Path, client: str, image: str, environ: Mapping[str, str]
) -> str | None:
    relevant = {**environment_of(PODMAN, environ), "HOME": environ.get("HOME", "")}
    path = folder / f"podman-{digest(repr((client, sorted(relevant.items()))).encode())}"
    settings = _digest(host, settings_of(environ))
    kept = _read(host, path)
    if kept is None or kept.settings != settings:
        kept = _find_store(host, client, environ, settings)
        if kept is None:
            return None
    now = _digest(host, [Path(kept.images)])
    if kept.list_digest != now:
        kept = msgspec.structs.replace(kept, list_digest=now, facts={})
    if image in kept.facts:
        return kept.facts[image]
    argv = [client, "image", "inspect", "--format", _LAYER + FACTS, image]
    done = host.run(argv, env=environ, timeout=_TIMEOUT)
    if done.code != 0:
        return None
    layer, _, facts = done.out.decode().partition("\n")
    # One of another store may be hidden by one of this name at any time.
    if layer.startswith(f"{kept.root}/"):
        kept = msgspec.structs.replace(kept, facts={**kept.facts, image: facts})
        host.put(folder, {path.name: File(msgspec.json.encode(kept))})
    return facts


def _find_store(host: Host, client: str, environ: Mapping[str, str], settings: str) -> Kept | None:
    done = host.run([client, "info", "--format", _STORE], env=environ, timeout=_TIMEOUT)
    remote, _, rest = done.out.decode().strip().partition(" ")
    driver, _, root = rest.partition(" ")
    if done.code != 0 or remote != "false" or not root.startswith("/"):
        return None
    return Kept(settings, root, f"{root}/{driver}-images/images.json", "", {})


def _read(host: Host, path: Path) -> Kept | None:
    (found,) = host.read_many([path])
    try:
        return msgspec.json.decode(found.data, type=Kept) if found else None
    except msgspec.DecodeError:
        return None


def _digest(host: Host, paths: Sequence[Path]) -> str:
    """Of what files hold, and of when they were written."""
    found = host.read_many(paths)
    return digest(repr([(each.at, each.data) if each else None for each in found]).encode())
