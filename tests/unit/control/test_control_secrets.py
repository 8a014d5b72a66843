"""Sealing, access keys, secrets as files, digests of sources, uploads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from easel_contracts.errors import InvalidInput, NotFound, Refused
from easel_contracts.spec import (
    GitSource,
    Image,
    ImageSource,
    Mount,
    NfsSource,
    ObjectSource,
    Resources,
    RevisionSpec,
    ScratchSource,
    Sidecar,
    Source,
)
from easel_control.decide.pins import MUTABLE
from easel_control.decide.secrets import EnvValue, GitLogin, RevisionSecrets
from easel_control.environment import Environments
from easel_control.keys import ALPHABET, FORM, new_key
from easel_control.sources import digests, tree_digest
from easel_control.uploads import CodeStore
from easel_control.vault import WrongMasterKey, open_vault


def test_sealed_values_open_for_their_purpose_only(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "master.key")
    sealed = vault.seal("token/ocr", b"hush")

    assert vault.open("token/ocr", sealed) == b"hush"
    assert b"hush" not in sealed
    assert vault.seal("token/ocr", b"hush") != sealed
    with pytest.raises(WrongMasterKey):
        vault.open("token/other", sealed)
    assert open_vault(tmp_path / "master.key").open("token/ocr", sealed) == b"hush"
    with pytest.raises(WrongMasterKey):
        open_vault(tmp_path / "second.key").open("token/ocr", sealed)


def test_a_master_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    open_vault(file)
    assert file.stat().st_mode & 0o777 == 0o600

    file.chmod(0o640)

    with pytest.raises(WrongMasterKey, match="chmod 600"):
        open_vault(file)


def test_access_keys_have_256_bits() -> None:
    keys = {new_key() for _ in range(50)}

    assert len(keys) == 50
    assert all(FORM.fullmatch(key) for key in keys)
    assert len(ALPHABET) ** 43 > 2**256


def test_secrets_are_read_from_private_files(tmp_path: Path) -> None:
    env = RevisionSecrets(env=(EnvValue(name="A", value="v"), EnvValue(name="B", secret="db")))
    environments = Environments(open_vault(tmp_path / "master.key"), tmp_path / "secrets")
    assert [e.code for e in environments.missing(env)] == ["NOT_FOUND"]
    (tmp_path / "secrets").mkdir()
    file = tmp_path / "secrets" / "db"
    file.write_text("hush\n")
    file.chmod(0o644)
    assert "chmod 600" in environments.missing(env)[0].message
    file.chmod(0o600)
    assert environments.missing(env) == ()
    sealed = environments.seal("default", "ocr", 1, env)

    assert environments.resolve("default", "ocr", 1, sealed).env == {"A": "v", "B": "hush"}
    assert environments.stored("default", "ocr", 1, sealed) == env
    file.unlink()
    with pytest.raises(Refused):
        environments.resolve("default", "ocr", 1, sealed)


def test_secrets_of_sidecars_and_repositories_are_sealed_with_the_revision(tmp_path: Path) -> None:
    environments = Environments(open_vault(tmp_path / "master.key"), tmp_path / "secrets")
    secrets = RevisionSecrets(
        sidecars=((), (EnvValue(name="A", value="hush-1"), EnvValue(name="B", secret="none"))),
        logins={3: GitLogin(username="me", password="hush-2")},
    )
    sealed = environments.seal("default", "ocr", 1, secrets)

    assert environments.stored("default", "ocr", 1, sealed) == secrets
    assert b"hush" not in sealed
    assert "hush" not in repr((secrets, secrets.logins, secrets.sidecars))
    assert [e.path for e in environments.missing(secrets)] == ["containers[2].env[1].secretRef.name"]
    found = environments.resolve("default", "ocr", 1, environments.seal("default", "ocr", 1, replace(
        secrets, sidecars=((), (EnvValue(name="A", value="hush-1"),)))))  # fmt: skip
    assert (found.env, found.sidecars) == ({}, ({}, {"A": "hush-1"}))
    assert found.logins[3].password == "hush-2"
    assert "hush" not in repr(found)


def test_environments_sealed_before_there_were_images_open(tmp_path: Path) -> None:
    """And one environment alone is still stored so that the version before can read it."""
    vault = open_vault(tmp_path / "master.key")
    environments = Environments(vault, tmp_path / "secrets")
    plain = b'[{"name":"A","value":"v"},{"name":"B","secret":"db"}]'
    env = RevisionSecrets(env=(EnvValue(name="A", value="v"), EnvValue(name="B", secret="db")))

    assert environments.stored("default", "ocr", 2, vault.seal("env/default/ocr/2", plain)) == env
    assert vault.open("env/default/ocr/2", environments.seal("default", "ocr", 2, env)) == plain


def test_tree_digests_see_content_names_links_and_modes(tmp_path: Path) -> None:
    root = tmp_path / "code"
    (root / "sub").mkdir(parents=True)
    (root / "a.py").write_text("1")
    seen = [tree_digest(root)]

    (root / "a.py").write_text("2")
    seen.append(tree_digest(root))
    (root / "a.py").rename(root / "b.py")
    seen.append(tree_digest(root))
    (root / "b.py").chmod(0o755)
    seen.append(tree_digest(root))
    (root / "link").symlink_to("b.py")
    seen.append(tree_digest(root))

    assert len(set(seen)) == 5
    assert all(d.startswith("sha256:") for d in seen)
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "a.pyc").write_text("x")
    os.utime(root / "b.py", (1, 1))
    assert tree_digest(root) == seen[-1]
    assert tree_digest(tmp_path / "nothing") == MUTABLE


def test_too_many_files_are_mutable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easel_control.sources.MAX_FILES", 2)
    for i in range(3):
        (tmp_path / str(i)).touch()

    assert tree_digest(tmp_path) == MUTABLE


async def test_sources_of_a_revision(tmp_path: Path) -> None:
    spec = RevisionSpec(
        number=0, resources=Resources(cpu=1, memory_mib=1), port=1, python_requirements=("numpy",),
        mounts=(
            Mount(mount_path="/a", host_path=str(tmp_path)),
            Mount(mount_path="/b", host_path=str(tmp_path), read_only=False),
            Mount(mount_path="/c", host_path=str(tmp_path / "none")),
            Mount(mount_path="/d", code_digest="sha256:" + "0" * 64),
        ),
    )  # fmt: skip
    found, errors = await digests(spec, tmp_path / "code", sees_paths=True)

    assert [d.digest[:7] for d in found] == ["sha256:", "mutable", "mutable", "sha256:", "sha256:"]
    assert [e.path for e in errors] == ["storage[2].local.path", "storage[3].local.digest"]


async def test_sources_that_only_replicas_can_find_out(tmp_path: Path) -> None:
    """A digest or a whole commit in the name says what it is; everything else can change until a replica runs."""
    digest, commit = "sha256:" + "a" * 64, "b" * 40
    sources: list[Source] = [
        GitSource(repo="https://x/y", commit=commit), GitSource(repo="https://x/y", commit="bbbbbbb"),
        ImageSource(image="a:1"), ImageSource(image=f"a@{digest}"), ObjectSource(url="oss://b/"),
        NfsSource(server="files"), ScratchSource(),
    ]  # fmt: skip
    spec = RevisionSpec(
        number=0, resources=Resources(cpu=1, memory_mib=1), port=1, image=Image(reference="ocr:1"),
        sidecars=(Sidecar(image=Image(reference=f"proxy:2@{digest}")),),
        mounts=tuple(Mount(mount_path=f"/m{i}", source=source) for i, source in enumerate(sources)),
        python_requirements_path="/m0/requirements.txt",
    )  # fmt: skip
    found, errors = await digests(spec, tmp_path, sees_paths=True)

    assert [(d.source, d.digest) for d in found] == [
        ("containers[0].image", MUTABLE), ("containers[1].image", digest), ("storage[0].git", commit),
        ("storage[1].git", MUTABLE), ("storage[2].image", MUTABLE), ("storage[3].image", digest),
        ("storage[4].oss", MUTABLE), ("storage[5].nfs", MUTABLE),
    ]  # fmt: skip
    assert errors == ()


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_uploads(tmp_path: Path) -> None:
    store = CodeStore(tmp_path / "code", max_bytes=1000)
    data = b"\x1f\x8babcd"
    digest, size = await store.keep(chunks(data[:4], data[4:]))

    assert (digest, size) == (f"sha256:{hashlib.sha256(data).hexdigest()}", 6)
    assert b"".join([c async for c in store.read(digest)]) == data
    for parts in ((b"PK",), (), (b"\x1f\x8b", b"x" * 1000)):
        with pytest.raises(InvalidInput):
            await store.keep(chunks(*parts))
    with pytest.raises(NotFound):
        store.read("sha256:../../etc/passwd")
    assert len(list(store.directory.iterdir())) == 1
    assert store.collect({digest}, keep_s=-1) == 0
    assert store.collect(set(), keep_s=3600) == 0
    assert store.collect(set(), keep_s=-1) == 1
