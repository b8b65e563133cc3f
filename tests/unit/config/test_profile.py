"""Profiles, the precedence of settings, and the backends' file."""

from __future__ import annotations

import pytest

from dstack.config.address import Address, parse_address
from dstack.config.backends import Backend, load_backends
from dstack.config.profile import load_profiles
from dstack.config.settings import DEFAULTS, resolve
from dstack.config.shapes import Gpu, Range, Resources, Retry, Settings
from dstack.errors import FileErrors, UsageError

GB = 1024**3

WHOLE = b"""
profiles:
  - name: large
    backends: [local]
    resources:
      cpu: 16..
      memory: 24GB..80GB
      shm_size: 16GB
      disk: 100GB
      gpu: A100:40GB:2
    spot_policy: on-demand
    max_price: 1.5
    retry: {on_events: [no-capacity, error], duration: 3h}
    max_duration: 2d
  - name: small
    default: true
"""


def shown(text: str) -> list[str]:
    with pytest.raises(FileErrors) as caught:
        load_profiles(text.encode(), "p")
    return [f"{p.line}:{p.column} {p.where}: {p.text}" for p in caught.value.problems]


def test_every_property_of_a_profile() -> None:
    profiles = load_profiles(WHOLE, "p")
    assert profiles.pick("large") == (
        "large",
        Settings(
            backends=("local",),
            resources=Resources(
                cpu=Range(16, None),
                memory=Range(24 * GB, 80 * GB),
                gpu=Gpu(Range(2, 2), "A100", Range(40 * GB, 40 * GB)),
                shm_size=16 * GB,
                disk=Range(100 * GB, 100 * GB),
            ),
            spot_policy="on-demand",
            max_price=1.5,
            retry=Retry(("no-capacity", "error"), 10800),
            max_duration=172800,
        ),
    )


def test_the_default_is_taken_when_none_is_named() -> None:
    assert load_profiles(WHOLE, "p").pick(None) == ("small", Settings())
    assert load_profiles(b"profiles: [{name: a}]", "p").pick(None) is None
    assert load_profiles(b"profiles: []", "p").pick(None) is None


def test_an_unknown_profile_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        load_profiles(WHOLE, "p").pick("huge")
    assert (caught.value.message, caught.value.hint) == (
        'there is no profile "huge"',
        "there are: large, small",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b", ["1:1 a: there is no such property", "1:1 profiles: is required"]),
        ("[a]", ["1:1 None: must be a mapping with `profiles`, not a list"]),
        ("profiles:", ["1:1 profiles: has no value; it must be a list of profiles"]),
        ("profiles: {name: a}", ["1:11 profiles: must be a list of profiles, not a mapping"]),
        ("profiles: [a]", ['1:12 profiles: must be a mapping, not "a"']),
        ("profiles: [{}]", ["1:12 profiles.name: is required"]),
        ("profiles:\n- name: a\n- name: a",
         ['3:9 profiles.name: "a" stands here twice; first in line 2']),
        ("profiles:\n- {name: a, default: true}\n- {name: b, default: true}",
         ["3:22 profiles.default: only one profile can be the default; the one in line 2 is"]),
        ("profiles: [{name: a, default: yes}]",
         ['1:31 profiles.default: "yes" is neither true nor false']),
        ("profiles: [{name: a, resources: {gpu: x:y}}]",
         ['1:39 profiles.resources.gpu: "x:y" gives the name twice']),
        ("profiles: [{name: a, retry: true, retry_policy: {limit: 3h}}]",
         ["1:35 profiles.retry_policy: says the same as retry: keep one of them"]),
        ("profiles: [{name: a, commands: [x]}]",
         ["1:22 profiles.commands: there is no such property"]),
    ],
)  # fmt: skip
def test_wrong_profiles(text: str, expected: list[str]) -> None:
    assert shown(text) == expected


def test_precedence_is_command_line_file_profile_defaults() -> None:
    line = Settings(max_duration=1)
    task = Settings(max_duration=2, max_price=2.0)
    profile = Settings(max_duration=3, max_price=3.0, spot_policy="spot")
    merged = resolve(line, task, profile)
    assert merged == Settings(max_duration=1, max_price=2.0, spot_policy="spot")
    assert resolve(Settings(), Settings(), profile).max_duration == 3


def test_the_defaults() -> None:
    assert resolve(Settings(), Settings(), None) == DEFAULTS
    assert Settings(spot_policy="auto", max_duration=72 * 3600) == DEFAULTS


def test_off_and_no_retry_win_over_what_stands_below() -> None:
    below = Settings(max_duration=5, retry=Retry(("error",), 60))
    merged = resolve(Settings(max_duration=0, retry=Retry((), 0)), Settings(), below)
    assert (merged.max_duration, merged.retry) == (0, Retry((), 0))


def test_resources_are_merged_field_by_field() -> None:
    task = Settings(resources=Resources(cpu=Range(2, 2), memory=Range(GB, GB)))
    profile = Settings(resources=Resources(memory=Range(9 * GB, None), shm_size=GB))
    line = Settings(resources=Resources(cpu=Range(4, 4)))
    assert resolve(line, task, profile).resources == Resources(
        cpu=Range(4, 4), memory=Range(GB, GB), shm_size=GB
    )


def test_backends() -> None:
    assert load_backends(None, "c") == (Backend(),)
    assert load_backends(b"backends: [{name: here, engine: process}]", "c") == (
        Backend("here", "local", "process"),
    )
    source = b"""
backends:
- name: box
  type: ssh
  host: me@box:22
  identity_file: ~/.ssh/box
  root: /scratch/me
  default: true
- {name: lab, type: ssh, host: lab}
"""
    box, lab = load_backends(source, "c")
    assert box == Backend(
        "box",
        "ssh",
        host="me@box:22",
        identity_file="~/.ssh/box",
        root="/scratch/me",
        default=True,
    )
    assert (lab.root, lab.identity_file, lab.default) == ("~/.dstack", None, False)


WRONG_BACKENDS = {
    "backends: []": "the list is empty",
    "backends: [a]": "must be a mapping",
    "x: y": "x: there is no such property",
    "[]": "must be a mapping",
    "backends: [{name: a}, {name: a}]": "stands here twice",
    "backends: [{name: a, engine: vm}]": "is not auto, process",
    "a: [": "",
    "backends: [{type: local}]": "name",
    "backends: [{name: a, type: vm}]": "is not local or ssh",
    "backends: [{name: a, type: ssh}]": "host: is required with type: ssh",
    "backends: [{name: a, host: b}]": "is only for a backend of type: ssh",
    "backends: [{name: a, root: /b}]": "is only for a backend of type: ssh",
    "backends: [{name: a, type: ssh, host: -oProxyCommand=x}]": "is not the name of a machine",
    "backends: [{name: a, type: ssh, host: 'b c'}]": "is not the name of a machine",
    "backends: [{name: a, type: ssh, host: 'b:99999'}]": "is not a port",
    "backends: [{name: a, type: ssh, host: '@b'}]": "the user before @ is missing",
    "backends: [{name: a, type: ssh, host: b, root: c}]": "begins with / or ~/",
    "backends: [{name: a, type: ssh, host: b, root: /}]": "begins with / or ~/",
    "backends: [{name: a, default: true}, {name: b, default: true}]": "only one backend",
}


@pytest.mark.parametrize("text", WRONG_BACKENDS)
def test_wrong_backends(text: str) -> None:
    with pytest.raises(FileErrors) as caught:
        load_backends(text.encode(), "c")
    assert all(problem.file == "c" for problem in caught.value.problems)
    assert WRONG_BACKENDS[text] in str(caught.value.message)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("box", Address("box")),
        ("me@box", Address("box", "me")),
        ("me@box.example.com:2222", Address("box.example.com", "me", 2222)),
        ("10.0.0.1:22", Address("10.0.0.1", None, 22)),
        ("[fe80::1%eth0]:22", Address("fe80::1%eth0", None, 22)),
        ("me@[::1]", Address("::1", "me")),
        ("a@b@box", Address("box", "a@b")),
        ("::1", Address("::1")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
