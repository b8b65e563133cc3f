"""One host: starting it, looking into it, and all that may happen to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path
from shlex import quote

from tests.engines import machine
from tests.hosts import root
from tests.hosts.namespaces import PATH, Process, call, inside, processes
from tests.hosts.network import Address, Link
from tests.hosts.spec import USERS, Spec

_PID_FILE = "/run/sshd.pid"
_SSHD = """
Port {port}
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/keys/%u
PidFile {pid_file}
UsePAM no
KbdInteractiveAuthentication no
UseDNS no
"""
_SFTP = "Subsystem sftp internal-sftp\n"
# What a host runs without anyone: not left behind by a test.
_LISTENER = "sshd: /usr/sbin/sshd"
_DAEMONS = (_LISTENER, "dockerd", "containerd")
_CLEAN = """
while read -r kind place rest; do
    [ "$kind" != small ] || umount "$place"
done </proc/mounts
rm -rf /home/* /root/.[!.]* /root/* /var/tmp/* /tmp/* /dev/shm/*
"""


class Host:
    """A machine as good as any: own address, name, key, disk, accounts, processes and boots.

    `folder` holds what outlives a boot. `near` is the host from which alone it is reached.
    """

    def __init__(
        self, spec: Spec, folder: Path, device: str, address: Address, near: Host | None
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.folder = folder
        self.near = near
        self.link = Link(device, address)
        self.behind: list[Host] = []  # who is reached through this one
        self.pid = 0  # its process 1, as it is known here; 0 while it is off
        if near:
            near.behind.append(self)

    # ---- power ----

    def prepare(self, keys: list[Path], uv: str | None, password_hash: str) -> None:
        """Make its disk, host key and settings; `keys` are the public ones that may log in."""
        (self.folder / "root").mkdir(parents=True)
        etc = self.folder / "etc"
        root.write_etc(self.spec, etc, password_hash)
        root.write_homes(self.folder / "disk")
        allowed = etc / "ssh/keys"
        allowed.mkdir(parents=True, exist_ok=True)
        for user in USERS:
            (allowed / user).write_text("".join(k.read_text() for k in keys if user != "typed"))
        settings = _SSHD.format(port=self.spec.port, pid_file=_PID_FILE)
        # `sftp` needs nothing of the host's own, so that a bare one would have it, too.
        settings += f"ChrootDirectory {root.BARE}\n" if self.spec.bare else _SFTP
        (etc / "ssh/sshd_config").write_text(settings)
        make_key(etc / "ssh/host_key", comment=self.name)
        (self.folder / "init.sh").write_text(root.script(self.spec, self.folder, uv))

    def boot(self) -> None:
        """Begin to start; `wait` goes on."""
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        (self.folder / "pid").unlink(missing_ok=True)
        (self.folder / "pid.new").unlink(missing_ok=True)
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        command: list[str | Path] = ["unshare", *spaces, "--fork", "sh", self.folder / "init.sh"]
        machine.detach(self.folder / "log", "env", "-i", f"PATH={PATH}", *command)

    def wait(self) -> None:
        """Until it is up and `sshd` answers."""
        written = self.folder / "pid.new"
        machine.wait_until(lambda: written.exists() and written.read_text(), f"{self.name} to boot")
        self.pid = int(written.read_text())
        written.rename(self.folder / "pid")
        self._connect()
        for host in self.behind:
            if host.pid:
                host._connect()
        machine.wait_until(lambda: self._comm() != "sh", f"{self.name} to be whole")
        if self._comm() != "catatonit":
            raise RuntimeError(f"{self.name} did not start: {(self.folder / 'log').read_text()}")
        self.start_sshd()

    def start(self) -> None:
        """Turn it on."""
        self.boot()
        self.wait()

    def power_off(self) -> None:
        """All its processes are gone at once, and nobody is told, as its link goes first.

        So does whatever is left of an earlier start.
        """
        self.pid = self.pid or _number(self.folder / "pid") or _number(self.folder / "pid.new")
        for link in [self.link, *(host.link for host in self.behind)]:
            link.disconnect()
        if self.pid and self._is_mine():
            os.kill(self.pid, signal.SIGKILL)
            machine.wait_until(lambda: not machine.start_time(self.pid), f"{self.name} to end")
        self.pid = 0

    def reboot(self) -> None:
        """Off and on again: another boot id, no process as before, only the disk is the same."""
        self.power_off()
        self.start()

    # ---- sshd ----

    def start_sshd(self) -> None:
        """Answer to `ssh` again."""
        # It goes to the background before it listens, and writes its number afterwards.
        written = self.path(_PID_FILE, system=True)
        written.unlink(missing_ok=True)
        self.admin("/usr/sbin/sshd", "-f", "/etc/ssh/sshd_config", "-E", "/var/log/sshd.log")
        machine.wait_until(written.exists, f"sshd on {self.name} to listen")

    def stop_sshd(self) -> None:
        """Refuse new connections; those that there are go on."""
        pid = int(self.admin("cat", _PID_FILE))
        self.admin("kill", str(pid))
        self.admin("sh", "-c", f"while [ -d /proc/{pid} ]; do sleep 0.01; done")

    def change_key(self) -> None:
        """Have another host key from now on, as when someone else has the address."""
        self.stop_sshd()
        key = self.folder / "etc/ssh/host_key"
        for path in (key, key.with_suffix(".pub")):
            path.unlink(missing_ok=True)
        make_key(key, comment=f"{self.name}, too")
        self.write("/etc/ssh/host_key", key.read_text(), mode=0o600, system=True)
        self.start_sshd()

    @property
    def host_key(self) -> str:
        """Its public key: `TYPE KEY`."""
        words = (self.folder / "etc/ssh/host_key.pub").read_text().split()
        return " ".join(words[:2])

    # ---- looking into it ----

    def admin(self, *command: str | Path, input: str = "") -> str:
        """What a command says that is run there as root, without `ssh`; it must succeed."""
        return call(self.pid, *command, input=input)

    def admin_command(self, *command: str | Path) -> list[str]:
        """The command line that does the same."""
        return inside(self.pid, *command)

    def path(self, path: str, *, system: bool = False) -> Path:
        """Where a file of the host is found from here, while it is up.

        Below what its users see; with `system`, below what `sshd` sees, if that is another place.
        """
        top = root.BARE if self.spec.bare and not system else ""
        return Path(f"/proc/{self.pid}/root{top}{path}")

    def home(self, user: str = "me") -> Path:
        """That user's home, as a path from here."""
        return self.path("/root" if user == "root" else f"/home/{user}")

    def write(
        self,
        path: str,
        content: str,
        *,
        mode: int = 0o644,
        user: str = "root",
        system: bool = False,
    ) -> None:
        """Put a file there, such as a stand-in on everyone's PATH (/usr/local/bin)."""
        target = self.path(path, system=system)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(mode)
        os.chown(target, USERS[user][0], USERS[user][0])

    def processes(self, *users: str) -> list[Process]:
        """What runs there beside its daemons: of these users, or of all."""
        wanted = {USERS[user][0] for user in users}
        return [
            process
            for process in processes(self.pid)
            if not process.command.startswith(_DAEMONS) and (process.uid in wanted or not wanted)
        ]

    def daemons(self) -> list[Process]:
        """The services that it has without anyone logged in."""
        return [p for p in processes(self.pid) if p.command.startswith(_DAEMONS)]

    def jobs(self) -> list[Process]:
        """What runs there, but for the ends of connections."""
        return [process for process in self.processes() if not process.command.startswith("sshd:")]

    def log(self) -> str:
        """What `sshd` has to say."""
        return self.path("/var/log/sshd.log", system=True).read_text()

    # ---- its disk ----

    def small_disk(
        self, size: str = "16m", path: str = "/home/me/.dstack", user: str = "me"
    ) -> None:
        """Make a folder a disk of its own, of that size. `clean` takes it away."""
        place = f"{root.BARE if self.spec.bare else ''}{path}"
        number = USERS[user][0]
        options = f"size={size},mode=0700,uid={number},gid={number}"
        self.admin(
            "sh",
            "-c",
            f"mkdir -p {quote(place)} && mount -t tmpfs -o {options} small {quote(place)}",
        )

    def fill(self, path: str = "/home/me/.dstack") -> Path:
        """Fill that small disk to the last byte; the file that does it, to be deleted."""
        filler = self.path(f"{path}/filler")
        with filler.open("wb", buffering=0) as out:
            size = 1 << 20
            while size:
                try:
                    out.write(b"\0" * size)
                except OSError:
                    size //= 2
        return filler

    # ---- after a test ----

    def clean(self) -> None:
        """As it was in the beginning: on, reached, without processes, its homes as when new."""
        if not self.pid or not machine.start_time(self.pid):
            self.power_off()
            self.start()
        self.link.heal()
        for process in self.processes():
            _kill(process.pid)
        machine.wait_until(lambda: not self.processes(), f"the processes on {self.name} to end")
        if not any(p.command.startswith(_LISTENER) for p in self.daemons()):
            self.start_sshd()
        self.admin("sh", "-c", _CLEAN)
        root.write_homes(self.folder / "disk")

    def _connect(self) -> None:
        self.link.connect(self.near.pid if self.near else 0, self.pid)

    def _comm(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/comm").read_text().strip()
        except OSError:
            return ""

    def _is_mine(self) -> bool:
        """Whether the process is still the one that was written down: it has our script or root."""
        try:
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return False
        return "catatonit" in command or str(self.folder) in command


def make_key(path: Path, *, comment: str, passphrase: str = "") -> None:
    """Make a pair of keys where there is none."""
    if not path.exists():
        options = ["-q", "-t", "ed25519", "-N", passphrase, "-C", comment]
        subprocess.run(["ssh-keygen", *options, "-f", path], check=True)


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def delete(folder: Path) -> None:
    """Delete a host's folder; nothing is mounted there as this machine sees it."""
    shutil.rmtree(folder, ignore_errors=True)
