"""The file systems of the test images: slices of this machine, written straight as layer tars."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

TOOLS = """
    bash sh dash env ls cat cp mv rm ln mkdir rmdir mktemp touch chmod chown head tail wc sort tr
    cut tee dd du df stat date sleep seq echo printf pwd id whoami uname hostname true false test
    kill readlink realpath dirname basename nproc timeout sync yes od sha256sum stty tty
    grep sed awk find xargs tar gzip ps mount
"""
SKIPPED = {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "site-packages"}
UNNEEDED = ("_test", "_tkinter", "_ctypes_test")
# Only this one image has a home for others than root.
APP_ID = 1000
PASSWD = f"root:x:0:0:root:/root:/bin/bash\napp:x:{APP_ID}:{APP_ID}:app:/home/app:/bin/bash\n"
GROUP = f"root:x:0:\napp:x:{APP_ID}:\n"
ENTRY = """#!/bin/sh
echo "entry: $*"
exec "$@"
"""


class Layer:
    """A layer tar being written. Folders above a file are made as they are needed."""

    def __init__(self, target: Path) -> None:
        self.tar = tarfile.open(target, "w")  # noqa: SIM115 (closed by `close`)
        self.there: set[str] = set()

    def folder(self, path: str, mode: int = 0o755, owner: int = 0) -> None:
        """Make `path` (absolute) and what is above it."""
        path = path.rstrip("/")
        if not path or path in self.there:
            return
        self.folder(path.rpartition("/")[0])
        self.there.add(path)
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
        self.tar.addfile(entry)

    def link(self, path: str, target: str) -> None:
        """Make `path` a symbolic link."""
        if self._new(path):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
            self.tar.addfile(entry)

    def write(self, path: str, content: str | bytes, mode: int = 0o644, owner: int = 0) -> None:
        """Make `path` a file with `content`."""
        if self._new(path):
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.uid, entry.gid = len(data), mode, owner, owner
            self.tar.addfile(entry, io.BytesIO(data))

    def copy(self, source: Path, path: str) -> None:
        """Put the machine's file there: what it is, links followed, owned by root."""
        if self._new(path):
            with source.open("rb") as stream:
                entry = self.tar.gettarinfo(arcname=path.lstrip("/"), fileobj=stream)
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                # Two names of one file would become a hard link to a name outside the layer.
                entry.type, entry.linkname = tarfile.REGTYPE, ""
                entry.size = source.stat().st_size
                entry.mode |= 0o444
                self.tar.addfile(entry, stream)

    def tree(self, source: Path, path: str) -> None:
        """Put all of a folder there, but for what no image needs."""
        for item in sorted(source.iterdir()):
            if item.is_dir():
                if item.name not in SKIPPED and not item.name.startswith("config-"):
                    self.tree(item, f"{path}/{item.name}")
            elif item.is_file() and not item.name.startswith(UNNEEDED) and ".opt-" not in item.name:
                self.copy(item, f"{path}/{item.name}")

    def close(self) -> None:
        self.tar.close()

    def _new(self, path: str) -> bool:
        if path in self.there:
            return False
        self.folder(path.rpartition("/")[0])
        self.there.add(path)
        return True


def busybox() -> Path:
    """The machine's busybox, which must be a static one."""
    found = shutil.which("busybox")
    if found is None:
        raise SystemExit("needs busybox: apt-get install busybox-static")
    return Path(found).resolve()


def busybox_layer(target: Path) -> None:
    """`sh` and its applets, no bash; about 2 MB."""
    layer = Layer(target)
    layer.copy(busybox(), "/bin/busybox")
    applets = subprocess.run(
        [busybox(), "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    for applet in applets:
        if applet not in {"busybox", "bash"}:
            layer.link(f"/bin/{applet}", "busybox")
    _system(layer)
    layer.close()


def single_binary_layer(target: Path) -> None:
    """One static program, called by its path and a word for what it does; no other file."""
    layer = Layer(target)
    layer.copy(busybox(), "/busybox")
    layer.close()


def foreign_layer(target: Path) -> None:
    """The busybox layer for another CPU: its program says AArch64 (ELF machine 183)."""
    program = bytearray(busybox().read_bytes())
    program[18:20] = (183).to_bytes(2, "little")
    layer = Layer(target)
    layer.write("/bin/busybox", bytes(program), 0o755)
    layer.link("/bin/sh", "busybox")
    layer.link("/bin/true", "busybox")
    layer.close()


def python_layer(target: Path, python: str) -> None:
    """`python` (an interpreter's path) with its standard library and pip, bash and coreutils."""
    facts = json.loads(
        subprocess.run([python, "-c", _FACTS], capture_output=True, text=True, check=True).stdout
    )
    layer = Layer(target)
    for name in ("bin", "sbin", "lib", "lib64"):
        layer.link(f"/{name}", f"usr/{name}")
    tools = {name: Path(found).resolve() for name in TOOLS.split() if (found := shutil.which(name))}
    for name, path in tools.items():
        layer.copy(path, f"/usr/bin/{name}")
    _python(layer, facts)
    extensions = list((Path(facts["stdlib"]) / "lib-dynload").glob("*.so"))
    kept = [path for path in extensions if not path.name.startswith(UNNEEDED)]
    _libraries(layer, [*tools.values(), Path(facts["executable"]), *kept])
    _system(layer)
    layer.folder("/home/app", 0o755, APP_ID)
    layer.write("/home/app/.bashrc", "export FROM_BASHRC=app\n", owner=APP_ID)
    layer.write("/root/.bashrc", "export FROM_BASHRC=root\n")
    layer.write("/opt/entry/bin/entry", ENTRY, 0o755)
    layer.close()


_FACTS = """
import json, os, sys, sysconfig
sites = [p for p in sys.path if os.path.isdir(os.path.join(p, "pip"))]
print(json.dumps({
    "executable": os.path.realpath(sys.executable), "version": "%d.%d" % sys.version_info[:2],
    "stdlib": sysconfig.get_path("stdlib"), "prefix": sys.base_prefix, "site": sites[:1],
}))
"""


def _python(layer: Layer, facts: dict[str, str]) -> None:
    # Debian's Python looks for its library where it was built for, others go by their own place.
    prefix = "/usr" if facts["prefix"] == "/usr" else "/usr/local"
    name = f"python{facts['version']}"
    layer.copy(Path(facts["executable"]), f"{prefix}/bin/{name}")
    for alias in ("python", "python3"):
        layer.link(f"/usr/local/bin/{alias}", f"{prefix}/bin/{name}")
    stdlib = f"{prefix}/lib/{name}"
    for site in facts["site"]:
        packages = (
            "/usr/lib/python3/dist-packages" if prefix == "/usr" else f"{stdlib}/site-packages"
        )
        layer.tree(Path(site) / "pip", f"{packages}/pip")
    layer.tree(Path(facts["stdlib"]), stdlib)
    wheels = Path("/usr/share/python-wheels")  # where Debian keeps what a new venv starts with
    if prefix == "/usr" and wheels.is_dir():
        layer.tree(wheels, str(wheels))
    layer.write("/usr/local/bin/pip", '#!/bin/sh\nexec python3 -m pip "$@"\n', 0o755)
    for path in ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/openssl.cnf"):
        if Path(path).is_file():
            layer.copy(Path(path), path)


def _libraries(layer: Layer, programs: list[Path]) -> None:
    """What the programs are linked against, all of it where the loader looks by itself."""
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    needed = set(re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", said, re.MULTILINE))
    libc = next(path for path in needed if Path(path).name.startswith("libc.so"))
    folder = "/usr" + libc.removeprefix("/usr").rpartition("/")[0]
    for path in sorted(needed):
        name = Path(path).name
        home = "/usr/lib64" if name.startswith("ld-linux") and "/lib64/" in path else folder
        layer.copy(Path(path).resolve(), f"{home}/{name}")
    # Threads that end load this one by name, so ldd does not know of it.
    for path in Path(folder).glob("libgcc_s.so.1"):
        layer.copy(path.resolve(), f"{folder}/{path.name}")


def _system(layer: Layer) -> None:
    layer.folder("/tmp", 0o1777)
    layer.folder("/var/tmp", 0o1777)
    layer.folder("/root", 0o700)
    layer.write("/etc/passwd", PASSWD)
    layer.write("/etc/group", GROUP)
    layer.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
