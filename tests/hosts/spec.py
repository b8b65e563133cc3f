"""Which hosts there are, and who has an account on them."""

from __future__ import annotations

from dataclasses import dataclass

# With the slash that a shell's own path has: what `sshd` writes into $SHELL.
USERS = {
    "root": (0, "/bin/bash"),
    "me": (4001, "/bin/bash"),
    "other": (4002, "/bin/sh"),
    "fish": (4003, "/usr/bin/fish"),
    "csh": (4004, "/bin/tcsh"),
    "noisy": (4005, "/bin/bash"),  # whose .bashrc prints, to both streams
    "typed": (4006, "/bin/bash"),  # who has no key there, only a password
}
PASSWORD = "open sesame"  # of user `typed`, and of the key `locked`


@dataclass(frozen=True)
class Spec:
    """What one host is like."""

    name: str
    port: int = 22
    behind: str = ""  # the only host from which this one is reached
    bare: bool = False  # nothing but busybox's `sh` and its applets
    python: bool = True
    uv: bool = False
    hidden: tuple[str, ...] = ("uv", "docker", "dockerd", "podman", "nvidia-smi")
    docker: bool = False  # it can run a Docker daemon of its own

    @property
    def shells(self) -> dict[str, str]:
        """The login shell of every user."""
        return {user: "/bin/sh" if self.bare else shell for user, (_, shell) in USERS.items()}


HOSTS = (
    Spec("alpha", uv=True),
    Spec("inner", port=2222, behind="alpha"),
    Spec("bare", bare=True, python=False),
    Spec("nogit", hidden=(*Spec.hidden, "git")),
    Spec("boxes", hidden=("uv", "podman", "nvidia-smi"), docker=True),
)
