"""The user's own `ssh`: a command of that name that knows the hosts, and nobody else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.hosts.host import Host, make_key
from tests.hosts.spec import PASSWORD, USERS

KEYS = ("id", "locked", "wrong")  # `locked` has a passphrase, `wrong` opens no host


def make_keys(folder: Path) -> list[Path]:
    """The users' keys; the public ones that hosts know."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEYS:
        passphrase = PASSWORD if name == "locked" else ""
        make_key(folder / name, comment=name, passphrase=passphrase)
    return [folder / f"{name}.pub" for name in KEYS if name != "wrong"]


class Client:
    """What a user has set up to reach the hosts, below `folder`: settings, keys, known hosts.

    Hosts are called by their names. What stands behind a dot makes another alias of the same host:
    a user (`alpha.other`, `alpha.fish`), `alpha.wrongkey`, `alpha.locked` (the key with a
    passphrase), `alpha.stranger` (a host never seen before).
    """

    def __init__(self, folder: Path, keys: Path, hosts: Sequence[Host]) -> None:
        self.folder = folder
        self.hosts = hosts
        self.config = folder / "config"
        self.known_hosts = folder / "known_hosts"
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True, exist_ok=True)
        for name in KEYS:
            shutil.copy2(keys / name, folder / name)
            shutil.copy2(keys / f"{name}.pub", folder / f"{name}.pub")
        self.known_hosts.write_text("".join(f"{place(h)} {h.host_key}\n" for h in hosts))
        self.config.write_text(self.settings())
        for program in ("ssh", "scp", "sftp"):
            if real := shutil.which(program, path="/usr/local/bin:/usr/bin:/bin"):
                wrapper = self.bin / program
                wrapper.write_text(f'#!/bin/sh\nexec {real} -F "{self.config}" "$@"\n')
                wrapper.chmod(0o755)

    def env(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment in which `ssh` is this one: what is set beside or instead of `base`."""
        path = (os.environ if base is None else base).get("PATH", os.defpath)
        return {"PATH": f"{self.bin}:{path}", "SSH_AUTH_SOCK": ""}

    def command(self, *args: str) -> list[str]:
        """The command line of `ssh` with `args`."""
        return [str(self.bin / "ssh"), *args]

    def run(
        self, *args: str, input: str = "", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """`ssh` with `args` to its end; it asks nobody."""
        return subprocess.run(
            self.command("-o", "BatchMode=yes", *args),
            input=input,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={**os.environ, **self.env()},
        )

    def forget(self) -> None:
        """Know no host any more."""
        self.known_hosts.write_text("")

    def settings(self) -> str:
        """The text of `ssh_config`. What stands first counts."""
        key = self.folder
        lines = [f"Host *.{user}\n  User {user}" for user in USERS]
        lines += [
            f"Host *.{name}\n  IdentityFile {key / file}"
            for name, file in (("wrongkey", "wrong"), ("locked", "locked"))
        ]
        lines.append(f"Host *.stranger\n  UserKnownHostsFile {self.folder}/strangers")
        for host in self.hosts:
            lines.append(
                f"Host {host.name} {host.name}.*\n  HostName {host.link.address.far}\n"
                f"  Port {host.spec.port}"
                + (f"\n  ProxyJump {host.near.name}" if host.near else "")
            )
        lines += [
            "Host nowhere\n  HostName nowhere.invalid",
            f"Host * !*.wrongkey !*.locked\n  IdentityFile {key}/id",
            f"Host *\n  User me\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile none\n"
            "  GSSAPIAuthentication no",
        ]
        return "\n".join(lines) + "\n"


def place(host: Host) -> str:
    """The host as `known_hosts` calls it."""
    address = host.link.address.far
    return address if host.spec.port == 22 else f"[{address}]:{host.spec.port}"
