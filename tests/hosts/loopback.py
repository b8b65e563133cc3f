"""This machine as one that `ssh` reaches: what is there is here, and can be looked at.

For suites that know nothing of hosts: they run unchanged, and all that they do goes over `ssh`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.engines import machine
from tests.engines.registry import free_port
from tests.hosts.host import make_key
from tests.hosts.namespaces import PATH

ALIAS = "loopback"
_SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/id.pub
PidFile {folder}/pid
UsePAM no
UseDNS no
StrictModes no
SetEnv PATH={path}
"""
_CLIENT = """
Host {alias}
  HostName 127.0.0.1
  Port {port}
  User root
  IdentityFile {folder}/id
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
"""


@contextlib.contextmanager
def loopback() -> Iterator[Path]:
    """An `sshd` here; the folder with an `ssh` that knows it as `loopback`, for the PATH."""
    # Not below tmp_path: others than its owner may not look into that.
    folder = Path(tempfile.mkdtemp(prefix="dst-", dir="/var/tmp"))
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host_key", "id"):
        make_key(folder / name, comment=name)
    port = free_port()
    (folder / "sshd_config").write_text(_SSHD.format(port=port, folder=folder, path=PATH))
    (folder / "config").write_text(_CLIENT.format(alias=ALIAS, port=port, folder=folder))
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    wrapper = folder / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{folder}/config" "$@"\n')
    wrapper.chmod(0o755)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("DSTACK_")}
    command = ["/usr/sbin/sshd", "-D", "-f", f"{folder}/sshd_config", "-E", f"{folder}/log"]
    # It ends with us, also when we are killed.
    sshd = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], env=environ)
    try:
        machine.wait_until((folder / "pid").exists, "sshd to listen", 20)
        yield wrapper.parent
    finally:
        sshd.terminate()
        sshd.wait()
        shutil.rmtree(folder)
