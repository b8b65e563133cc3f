"""Secrets on a real disk: encrypted, never lost, one key however many begin at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.errors import CannotStart, StoreError, UsageError
from dstack.paths import Home
from dstack.store.database import Database
from dstack.store.secrets import LARGEST, Vault
from tests.characters import NO_NUL

_opened: list[Database] = []


def vault_in(folder: Path) -> Vault:
    home = Home(folder)
    _opened.append(Database(home))
    return Vault(home, _opened[-1])


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return vault_in(tmp_path)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_secret_is_kept_for_the_next_command(tmp_path: Path, vault: Vault) -> None:
    vault.set("TOKEN", "first")
    vault.set("TOKEN", "hunter2-hunter2")
    vault.set("ANOTHER", "x")
    again = vault_in(tmp_path)
    assert again.names() == ["ANOTHER", "TOKEN"]
    assert again.get_many(["TOKEN"]) == {"TOKEN": "hunter2-hunter2"}
    assert again.get_many([]) == {}


def test_nothing_on_disk_holds_the_value(tmp_path: Path, vault: Vault) -> None:
    vault.set("TOKEN", "hunter2-hunter2")
    sealed = vault.seal({"SHELL_VALUE": "tell-nobody"})
    assert b"TOKEN" in everything_in(tmp_path)  # names may be read: the search finds what is there
    assert b"hunter2" not in everything_in(tmp_path)
    assert b"tell-nobody" not in sealed
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_key_that_others_could_read_is_closed(tmp_path: Path, vault: Vault) -> None:
    vault.set("TOKEN", "x")
    (tmp_path / "key").chmod(0o644)
    assert vault_in(tmp_path).get_many(["TOKEN"]) == {"TOKEN": "x"}
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@given(st.dictionaries(st.text("ABC_"), st.text(NO_NUL)))
def test_sealed_values_come_back(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]
) -> None:
    vault = vault_in(tmp_path_factory.getbasetemp())
    assert vault.open(vault.seal(values)) == values


@pytest.mark.parametrize("value", ["a\nb\n", " ", "für 模型 👩‍🔬", "\udc80\udcff", "x" * LARGEST])
def test_any_value_comes_back(vault: Vault, value: str) -> None:
    vault.set("V", value)
    assert vault.get_many(["V"]) == {"V": value}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("", "x", "name"),
        ("1A", "x", "name"),
        ("A-B", "x", "name"),
        ("NÄME", "x", "name"),
        ("A\n", "x", "name"),
        ("A", "", "empty"),
        ("A", "x" * (LARGEST + 1), "larger than 64 KB"),
        ("A", "ü" * (LARGEST // 2 + 1), "larger than 64 KB"),
        ("A", "x\0y", "NUL"),
        ("A", "\ud800", "surrogate"),
    ],
)
def test_what_cannot_be_a_secret_is_refused(
    tmp_path: Path, vault: Vault, name: str, value: str, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        vault.set(name, value)
    assert vault.names() == []
    assert not (tmp_path / "key").exists()


def test_delete_says_whether_there_was_one(vault: Vault) -> None:
    vault.set("A", "x")
    assert vault.delete("A")
    assert not vault.delete("A")
    assert vault.names() == []


def test_a_missing_secret_is_named(vault: Vault) -> None:
    with pytest.raises(CannotStart, match="no secret called NOPE") as caught:
        vault.get_many(["NOPE"])
    assert caught.value.hint == "set it with `dstack secrets set NOPE`"


def test_a_missing_key_is_never_replaced_while_secrets_need_it(
    tmp_path: Path, vault: Vault
) -> None:
    vault.set("A", "x")
    key = tmp_path / "key"
    kept = key.read_bytes()
    key.unlink()
    uses: list[Callable[[Vault], object]] = [
        lambda vault: vault.get_many(["A"]),
        lambda vault: vault.set("B", "y"),
        lambda vault: vault.seal({"B": "y"}),
    ]
    for use in uses:
        with pytest.raises(StoreError, match="key that opens the secrets is missing"):
            use(vault_in(tmp_path))
    assert not key.exists()
    key.write_bytes(kept)
    assert vault_in(tmp_path).get_many(["A"]) == {"A": "x"}
    key.unlink()
    assert vault_in(tmp_path).delete("A")
    vault_in(tmp_path).set("A", "anew")
    assert vault_in(tmp_path).get_many(["A"]) == {"A": "anew"}


@pytest.mark.parametrize("garbage", [b"", b"short", b"x" * 33])
def test_a_garbled_key_is_told_and_kept(tmp_path: Path, vault: Vault, garbage: bytes) -> None:
    vault.set("A", "x")
    (tmp_path / "key").write_bytes(garbage)
    with pytest.raises(StoreError, match="key that opens the secrets is damaged"):
        vault_in(tmp_path).set("A", "y")
    assert (tmp_path / "key").read_bytes() == garbage


def test_another_key_is_told(tmp_path: Path, vault: Vault) -> None:
    vault.set("A", "x")
    (tmp_path / "key").write_bytes(b"k" * 32)
    with pytest.raises(StoreError, match="the secret A cannot be decrypted"):
        vault_in(tmp_path).get_many(["A"])


@pytest.mark.parametrize("blob", [b"", b"short", b"x" * 200, "text", 7])
def test_a_garbled_secret_is_told(vault: Vault, blob: object) -> None:
    vault.set("A", "x")
    vault._database.connection.execute("UPDATE secrets SET blob = ?", (blob,))
    with pytest.raises(StoreError, match="the secret A cannot be decrypted"):
        vault.get_many(["A"])
    assert vault.names() == ["A"]


def test_one_secret_cannot_stand_for_another(vault: Vault) -> None:
    vault.set("A", "x")
    vault.set("B", "y")
    vault._database.connection.execute(
        "UPDATE secrets SET blob = (SELECT blob FROM secrets WHERE name = 'B') WHERE name = 'A'"
    )
    with pytest.raises(StoreError, match="the secret A cannot be decrypted"):
        vault.get_many(["A"])


def test_a_folder_that_is_gone_is_told(tmp_path: Path, vault: Vault) -> None:
    vault._path = tmp_path / "gone" / "key"
    with pytest.raises(StoreError, match="key for secrets cannot be written"):
        vault.seal({"A": "x"})


def test_commands_that_begin_at_once_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from dstack.paths import Home;"
        "from dstack.store.secrets import Vault;"
        "from dstack.store.database import Database; home = Home(pathlib.Path(sys.argv[1]));"
        "vault = Vault(home, Database(home)); print('ready', flush=True); sys.stdin.read(1);"
        "vault.set('S' + sys.argv[2], sys.argv[2])"
    )
    source = Path(sys.modules["dstack"].__file__ or "").parent.parent
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
        for number in range(8)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
    for process in started:
        assert process.stdin
        process.stdin.close()  # all of them go
    assert [process.wait(60) for process in started] == [0] * 8
    for process in started:
        assert process.stdout
        process.stdout.close()
    numbers = [str(number) for number in range(8)]
    found = vault_in(tmp_path).get_many([f"S{number}" for number in numbers])
    assert list(found.values()) == numbers
    assert [path.name for path in tmp_path.glob("key*")] == ["key"]
