"""What a build was made from, and whether it still fits. Pure.

A build has a fixed part (`parts_of`: the Python or the image, the commands, the environment, the
platform, the folder), which is known before, and a found part (`Inputs`: the files that it read and
the folders that it listed), which is known after. It fits when both are what they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ..config.shapes import EnvVar, Secret, Text
from ..digest import digest
from .model import Plan, Remote

# A file's mode and blob, or a folder's names, as one word each: equal words, equal content.
Word = bytes
Entries = Mapping[bytes, Word]
_FOLDER = b"folder "
_ORDER = "the order of the variables"


class Build(msgspec.Struct, frozen=True, omit_defaults=True):
    """One build. `created` is seconds since the epoch, `size` bytes, `took` seconds.

    `id` is that of the run that made it, `name` that run's name, and `tree` the code it was made
    from. `whole`: the file system does not tell what was read, so that every file counts. `image`
    is what a container engine calls it, `client` and `base_env` lead to that engine.
    """

    id: str
    name: str
    parts: Mapping[str, str]
    engine: str
    project: str
    workdir: str
    file: str
    tree: str
    created: float
    size: int = 0
    took: float = 0.0
    whole: bool = False
    image: str | None = None
    client: str = ""
    base_env: tuple[tuple[str, str], ...] = ()
    backend: str = "local"
    remote: Remote | None = None  # where the build is, if on another machine


class Inputs(msgspec.Struct, frozen=True):
    """What a build read: a word for each file, and for each folder that it listed."""

    files: Mapping[bytes, Word]
    folders: Mapping[bytes, Word]

    def encode(self) -> bytes:
        """As it is kept: `WORD TAB NAME NUL` each."""
        lines = [b"%b\t%b\0" % (word, name) for name, word in sorted(self.files.items())]
        lines += [
            b"%b%b\t%b\0" % (_FOLDER, word, name) for name, word in sorted(self.folders.items())
        ]
        return b"".join(lines)

    @classmethod
    def decode(cls, data: bytes) -> Inputs:
        """What `encode` made; raises ValueError for anything else."""
        files: dict[bytes, Word] = {}
        folders: dict[bytes, Word] = {}
        for line in data.split(b"\0")[:-1]:
            word, tab, name = line.partition(b"\t")
            if not tab:
                message = "not a list of inputs"
                raise ValueError(message)
            if word.startswith(_FOLDER):
                folders[name] = word[len(_FOLDER) :]
            else:
                files[name] = word
        return cls(files, folders)


def parts_of(plan: Plan, base: str, platform: str) -> dict[str, str]:
    """The fixed part, by what people call it. `base` is the image's digest, empty without one.

    Of a secret and of what is taken from the submitting shell only the name counts.
    """
    parts = {
        "the engine": plan.engine,
        "the platform": platform,
        "the folder": plan.workdir,
        "the build commands": _digest(plan.stage_commands),
    }
    if plan.remote is not None:
        parts["the host"] = f"{plan.remote.host} {plan.remote.root}"
    if plan.image is not None:
        parts["the image"] = base or plan.image
        parts["the entrypoint"] = _digest(plan.entrypoint or ())
        parts["home_dir"] = plan.home_dir or ""
    else:
        parts["the Python version"] = plan.python or ""
    names = [variable.name for variable in plan.env]
    for variable in plan.env:
        parts[f"the variable {variable.name}"] = _digest(_written(variable))
    # What comes later may refer to what comes before.
    parts[_ORDER] = _digest(names)
    return parts


def _digest(words: Iterable[str]) -> str:
    text = "".join(f"{len(word)}:{word}" for word in words)
    return digest(text.encode("utf-8", "surrogatepass"))


def _written(variable: EnvVar) -> list[str]:
    if variable.value is None:
        return ["shell"]
    words = []
    for part in variable.value:
        if isinstance(part, Text):
            words += ["text", part.text]
        else:
            words += ["secret" if isinstance(part, Secret) else "variable", part.name]
    return words


def changed_part(old: Mapping[str, str], new: Mapping[str, str]) -> str | None:
    """What differs first between two fixed parts, for people; None: nothing does."""
    for name in sorted({**new, **old}, key=_ORDER.__eq__):
        if old.get(name) != new.get(name):
            if name not in old:
                return f"{name} is new"
            if name not in new:
                return f"{name} is gone"
            return f"{name} changed"
    return None


def changed_input(inputs: Inputs, entries: Entries) -> str | None:
    """Which file or folder is not what it was when the build read it, for people."""
    for name, word in inputs.files.items():
        now = entries.get(name)
        if now != word:
            return f"{_shown(name)} {'was deleted' if now is None else 'changed'}"
    if inputs.folders:
        now_there = folder_words(entries, inputs.folders)
        for name, word in inputs.folders.items():
            if now_there.get(name) != word:
                return f"the files in {_shown(name) or 'the folder'} are not the same ones"
    return None


def untouched(inputs: Inputs, changes: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether changes (status of `git diff-tree`, name) are plainly none of the inputs.

    Cheaper than `changed_input`, which has to be asked where this is False.
    """
    for status, name in changes:
        if name in inputs.files:
            return False
        folder = name
        while inputs.folders and status != b"M" and folder:
            folder = folder.rpartition(b"/")[0]
            if folder in inputs.folders:
                return False
    return True


def inputs_of(entries: Entries, read: Iterable[bytes]) -> Inputs:
    """What counts of the names that were read: those that the code has, files and folders."""
    names = set(read)
    files = {name: entries[name] for name in names if name in entries}
    return Inputs(files, folder_words(entries, names - files.keys()))


def all_inputs(entries: Entries) -> Inputs:
    """Every file counts, and so does every name that is new."""
    folders = {b""}
    for name in entries:
        # Those, too, that hold nothing but folders: one more in there is new.
        while (name := name.rpartition(b"/")[0]) not in folders:
            folders.add(name)
    return Inputs(dict(entries), folder_words(entries, folders))


def folder_words(entries: Entries, wanted: Iterable[bytes]) -> dict[bytes, Word]:
    """A word for the names in each wanted folder; none for what is no folder. The root is b""."""
    wanted = set(wanted)
    if not wanted:
        return {}
    found: dict[bytes, set[bytes]] = {b"": set()}
    for entry in entries:
        path = entry
        while True:
            folder, _, name = path.rpartition(b"/")
            if folder in found:
                found[folder].add(name)
                break
            found[folder] = {name}
            path = folder
    return {
        folder: digest(b"\0".join(sorted(names))).encode()
        for folder, names in found.items()
        if folder in wanted
    }


def _shown(name: bytes) -> str:
    return ascii(name.decode("utf-8", "surrogateescape"))[1:-1] if name else ""
