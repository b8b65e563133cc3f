"""The host that a backend names, or that a run is on."""

from __future__ import annotations

from ..config.backends import Backend
from ..hosts.ssh import SshHost
from ..hosts.ssh_options import SshOptions
from ..paths import Home
from ..run.model import Remote


def make_host(name: str, remote: Remote, here: Home) -> SshHost:
    """The host that a remote names; nothing is connected yet."""
    options = SshOptions(remote.host, remote.identity_file, remote.root)
    return SshHost(name, options, here.root)


def host_of(backend: Backend, here: Home) -> SshHost:
    """The host of a backend; nothing is connected yet."""
    asked = Remote(backend.host or "", backend.root, backend.identity_file)
    return make_host(backend.name, asked, here)
