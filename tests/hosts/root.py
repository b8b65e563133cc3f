"""The file system of a host, put together in a mount namespace: a shell script does it.

What a host shares with this machine is its programs, `/usr` and `/etc`, seen through overlays: what
is written there is the host's own, and gone when it restarts. Its disk (`/root`, `/home`,
`/var/tmp` and what Docker keeps) is a folder of its own. Nothing else of this machine is there.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from shlex import quote

from tests.hosts.spec import USERS, Spec

# Where a host without anything lies, below the root of the namespace: `sshd` locks its users in.
BARE = "/bare"
DISK = {"root": "root", "home": "home", "vartmp": "var/tmp"}
_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_NODES = {"null": "1 3", "zero": "1 5", "full": "1 7", "random": "1 8", "urandom": "1 9"}


def script(spec: Spec, folder: Path, uv: str | None) -> str:
    """What process 1 of the host runs: it mounts all, writes `folder/pid` and stays as `init`.

    `folder` holds `disk/`, `etc/` (what replaces this machine's), `boot_id` and `root/` (empty);
    `uv` is the file that the host has as `/usr/local/bin/uv`.
    """
    lines = [
        "set -eu",
        # The /proc of outside is still there, and knows this process by its number outside.
        f"read -r pid rest </proc/self/stat; echo $pid >{quote(str(folder / 'pid.new'))}",
        "mount --make-rprivate /",
        f"hostname {spec.name}",
        f"cd {quote(str(folder))}",
        "mount -t tmpfs -o mode=0755,size=1g host root",
        "mkdir root/.layers && cd root",
        *_system(spec, folder, uv),
        *(_bare() if spec.bare else []),
        "mkdir .old && pivot_root . .old && cd / && umount -l /.old && rmdir /.old",
        "umount -l /.layers && rmdir /.layers",
        "exec catatonit -P",
    ]
    # Only now is it whole; a mount point for the overlays' own folders hides them in the end.
    lines.insert(7, "mount -t tmpfs -o mode=0700 layers .layers")
    return "\n".join(lines) + "\n"


def _system(spec: Spec, folder: Path, uv: str | None) -> list[str]:
    lines = [
        "mkdir -p proc sys dev run/sshd tmp usr etc opt var/log var/empty var/lib srv mnt",
        "chmod 1777 tmp; ln -s /run var/run",
        *(f"ln -s {Path('/', name).readlink()} {name}" for name in _TOP if _is_link(name)),
    ]
    lines += [
        *(
            f"mkdir {name}; mount --rbind -o ro /{name} {name}"
            for name in _TOP
            if Path("/", name).is_dir() and not _is_link(name)
        ),
        *(
            f"mkdir -p {target}; mount --bind {quote(str(folder))}/disk/{source} {target}"
            for source, target in DISK.items()
        ),
        f"mkdir -p .layers/usr/local/bin .layers/usr.work .layers/etc.work; "
        f"cp -a {quote(str(folder))}/etc .layers/etc",
    ]
    for program in spec.hidden:
        for place in ("bin", "sbin", "local/bin", "local/sbin"):
            if Path("/usr", place, program).exists():
                # A node 0:0 is how an overlay hides what lies below it.
                lines.append(f"mkdir -p .layers/usr/{place}")
                lines.append(f"mknod .layers/usr/{place}/{program} c 0 0")
    lines += _python() if spec.python else []
    if spec.uv and uv:
        lines.append("rm -f .layers/usr/local/bin/uv; : >.layers/usr/local/bin/uv")
    for name in ("usr", "etc"):
        options = f"lowerdir=/{name},upperdir=.layers/{name},workdir=.layers/{name}.work"
        lines.append(f"mount -t overlay -o {options} {name} {name}")
    if spec.uv and uv:
        lines.append(f"mount --bind {quote(uv)} usr/local/bin/uv")
    lines += [
        *_devices("."),
        "mount -t sysfs sysfs sys && mount --rbind /sys/fs/cgroup sys/fs/cgroup",
        *_proc(".", folder),
    ]
    if spec.docker:
        lines.append(
            f"mkdir var/lib/docker && mount --bind {quote(str(folder))}/docker var/lib/docker"
        )
    return lines


def _python() -> list[str]:
    """An interpreter from outside of /usr goes to /opt, as the place where it lies is not there."""
    if sys.base_prefix == "/usr" or shutil.which("python3", path="/usr/bin"):
        return []
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return [
        f"mkdir opt/python && mount --bind -o ro {quote(sys.base_prefix)} opt/python",
        f"for name in python3 {name}; do "
        f"ln -s /opt/python/bin/{name} .layers/usr/local/bin/$name; done",
    ]


def _bare() -> list[str]:
    """Another root below this one: one program under all its names, and what kernels offer."""
    busybox = shutil.which("busybox") or "busybox"
    bare = BARE.lstrip("/")
    return [
        f"mkdir -p {bare}/bin {bare}/proc {bare}/dev {bare}/tmp {bare}/etc {bare}/home {bare}/root",
        f"chmod 1777 {bare}/tmp; cp {quote(busybox)} {bare}/bin/busybox",
        f"for name in $({bare}/bin/busybox --list); do case $name in busybox | bash) ;; "
        f"*) ln -s busybox {bare}/bin/$name ;; esac; done",
        f"cp etc/passwd etc/group {bare}/etc/",
        f"mount --bind home {bare}/home; mount --bind root {bare}/root",
        f"mount --rbind dev {bare}/dev; mount --rbind proc {bare}/proc",
    ]


def _devices(root: str) -> list[str]:
    return [
        f"mount -t tmpfs -o mode=0755 dev {root}/dev; mkdir {root}/dev/pts {root}/dev/shm",
        *(f"mknod -m 666 {root}/dev/{name} c {number}" for name, number in _NODES.items()),
        f"mknod -m 666 {root}/dev/tty c 5 0",
        f"mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts {root}/dev/pts",
        f"ln -s pts/ptmx {root}/dev/ptmx; ln -s /proc/self/fd {root}/dev/fd",
        f"for n in 0 1 2; do ln -s /proc/self/fd/$n {root}/dev/x$n; done",
        f"cd {root}/dev; mv x0 stdin; mv x1 stdout; mv x2 stderr; cd - >/dev/null",
        f"mount -t tmpfs -o mode=1777 shm {root}/dev/shm",
    ]


def _proc(root: str, folder: Path) -> list[str]:
    return [
        f"mount -t proc proc {root}/proc",
        f"cp {quote(str(folder))}/boot_id .layers/boot_id",
        f"mount --bind .layers/boot_id {root}/proc/sys/kernel/random/boot_id",
    ]


def _is_link(name: str) -> bool:
    return Path("/", name).is_symlink()


def write_etc(spec: Spec, etc: Path, password_hash: str) -> None:
    """What a host has in /etc instead of this machine's: accounts, its name, shells' settings."""
    etc.mkdir(parents=True, exist_ok=True)
    accounts = [
        "sshd:*:103:65534::/run/sshd:/usr/sbin/nologin",
        "nobody:*:65534:65534::/:/bin/false",
    ]
    for user, (number, _) in USERS.items():
        home = "/root" if user == "root" else f"/home/{user}"
        secret = password_hash if user == "typed" else "*"
        accounts.append(f"{user}:{secret}:{number}:{number}:{user}:{home}:{spec.shells[user]}")
    groups = ["nogroup:x:65534:", "tty:x:5:", "docker:x:4100:me"]
    groups += [f"{user}:x:{number}:" for user, (number, _) in USERS.items()]
    for name, lines in (
        ("passwd", accounts),
        ("group", groups),
        ("hostname", [spec.name]),
        ("hosts", ["127.0.0.1 localhost", f"127.0.1.1 {spec.name}"]),
        ("nsswitch.conf", ["passwd: files", "group: files", "hosts: files dns"]),
        ("resolv.conf", []),
        ("motd", [f"This is {spec.name}."]),
    ):
        (etc / name).write_text("".join(f"{line}\n" for line in lines))
    (etc / "shadow").write_text("")
    (etc / "shadow").chmod(0o600)


def write_homes(disk: Path) -> None:
    """The disk of a new host: homes with the settings that their users have."""
    for folder in DISK:
        (disk / folder).mkdir(parents=True, exist_ok=True)
    (disk / "root").chmod(0o700)
    (disk / "vartmp").chmod(0o1777)
    for user, (number, _) in USERS.items():
        if user == "root":
            continue
        home = disk / "home" / user
        home.mkdir(mode=0o700, exist_ok=True)
        if user == "noisy":
            (home / ".bashrc").write_text(
                "echo 'Welcome, and mind the step'\necho 'disk: 93 %' >&2\n"
            )
        for path in (home, *home.iterdir()):
            shutil.chown(path, number, number)
