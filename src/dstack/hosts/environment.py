"""What a run gets of the launching process's environment; docs/guide/environment.md lists it."""

from __future__ import annotations

import os
from collections.abc import Mapping

# What makes the network, the package index and the GPUs of this machine usable at all.
_NAMES = frozenset(
    """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR TERM COLORTERM
    http_proxy https_proxy ftp_proxy all_proxy no_proxy
    HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS GIT_SSL_CAINFO
    LD_LIBRARY_PATH SSH_AUTH_SOCK NETRC
    """.split()  # noqa: SIM905 - a list would be a page long
)
_PREFIXES = ("LC_", "PIP_", "UV_", "CUDA_", "NVIDIA_", "ROCR_", "HIP_", "XDG_")

# These name the submitting shell's own project or environment, and would break the run's.
_BROKEN = frozenset(
    """
    UV_PYTHON UV_PROJECT UV_PROJECT_ENVIRONMENT UV_WORKING_DIR UV_WORKING_DIRECTORY
    UV_SYSTEM_PYTHON UV_VENV_SEED UV_VENV_CLEAR UV_VENV_RELOCATABLE UV_ENV_FILE UV_NO_PROJECT
    UV_BREAK_SYSTEM_PACKAGES UV_RUN_RECURSION_DEPTH UV_TOOL_BIN_DIR
    PIP_PREFIX PIP_TARGET PIP_ROOT PIP_USER PIP_PYTHON PIP_REQUIRE_VIRTUALENV
    XDG_SESSION_ID
    """.split()  # noqa: SIM905
)


def passed_through(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the launching process that a run sees. Pure."""
    return {
        name: value
        for name, value in environ.items()
        if (name in _NAMES or name.startswith(_PREFIXES)) and name not in _BROKEN
    }


def find_program(name: str, path: str) -> str | None:
    """The first of the folders of `path` that has the program; those that are absolute count.

    `shutil.which` would do, and importing it takes 3 ms of every command's start.
    """
    for folder in path.split(os.pathsep):
        there = os.path.join(folder, name)
        if os.path.isabs(there) and os.path.isfile(there) and os.access(there, os.X_OK):
            return there
    return None
