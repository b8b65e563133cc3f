"""Which folder is the project: what is sent is the project, the commands run in DIR inside it."""

from __future__ import annotations

import os
from pathlib import Path

from ..digest import digest
from ..errors import UsageError

PROFILES = (".dstack/profiles.yml", ".dstack/profiles.yaml")


def find_root(directory: Path) -> Path | None:
    """The nearest folder, from `directory` up, with a `.git` or with dstack's profiles in it."""
    for folder in (directory, *directory.parents):
        if (folder / ".git").exists() or _has_profiles(folder):
            return folder
    return None


def _has_profiles(folder: Path) -> bool:
    # Those in dstack's own folder, ~/.dstack, do not make the whole home a project.
    return (
        any((folder / name).is_file() for name in PROFILES)
        and not (folder / ".dstack" / "dstack.db").exists()
    )


def find_project(given: str, cwd: Path) -> tuple[Path, str]:
    """The project's folder, and DIR relative to it.

    The project is the git repository (or the folder with profiles) that DIR lies in, else DIR
    itself. Raises UsageError when DIR is not a folder, or lies outside the project that the user
    stands in.
    """
    directory = Path(cwd, given)
    try:
        if not given:
            raise FileNotFoundError
        directory = directory.resolve(strict=True)
    except FileNotFoundError:
        message = f"there is no folder {given or repr(given)}"
        raise UsageError(
            message, hint="`dstack run DIR` takes the folder the commands run in"
        ) from None
    except (OSError, RuntimeError) as error:
        message = f"cannot open the folder {given}: {error}"
        raise UsageError(message) from None
    if not directory.is_dir():
        message = f"{given} is not a folder"
        hint = "DIR is the folder the commands run in; the commands stand in its .dstack.yml"
        if directory.name.endswith((".dstack.yml", ".dstack.yaml")):
            hint = f"to name a file: dstack run . -f {given}"
        raise UsageError(message, hint=hint)
    here = find_root(cwd.resolve())
    if here is not None and directory != here and here not in directory.parents:
        message = f"{given} is outside the project {here}"
        raise UsageError(message, hint=f"go there first: cd {given} && dstack run .")
    root = find_root(directory) or directory
    return root, str(directory.relative_to(root))


def cache_key(project: Path, file: str) -> str:
    """What the caches of a task file lie under; `file` as in Plan."""
    return digest(os.fsencode(f"{project}\0{file}"))[:16]
