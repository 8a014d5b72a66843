"""Secrets stay where they belong: known values are searched for in everything that is told, logged or stored."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from easel_kit.streams import DEAD, FACTS
from easel_sdk import Client
from tests.e2e.consistency import assert_consistent, stores
from tests.e2e.platform import Platform, deploy, remove, spec

VALUE = "value-of-an-environment-variable-8a41"
GIVEN_TOKEN = "token-given-by-the-user-5f0c"

OWN_FILES = ("keys/",)
"""Where secrets lie by design, each readable by its owner only."""
WITH_TOKENS = ("router/last-good.jsonl",)
"""What Envoy must be told, tokens among it, so that the first second after a restart has it: 0600."""


@pytest.fixture
async def secrets(platform: Platform, easel: Client) -> AsyncIterator[dict[str, str]]:
    """Every secret there is, after some life of two services, and what it is called."""
    document = spec("discreet", metadata={"name": "discreet", "instance": 1, "cpu": 0.1, "memory": 256})
    document["containers"][0]["env"] = [{"name": "PASSWORD", "value": VALUE}]
    made = await deploy(easel, document)
    given = await deploy(easel, spec("given", token=GIVEN_TOKEN))
    await easel.services.scale("discreet", 2)
    changed = await easel.services.update("discreet", {"metadata": {"cpu": 0.2}})
    await easel.wait("discreet", generation=changed.generation, timeout_s=60)
    await assert_consistent(platform.home)
    found = {VALUE: "environment value", GIVEN_TOKEN: "given token", made.token: "made token", given.token: "given"}
    for file in (platform.home / "keys").rglob("*"):
        if file.is_file() and file.name != "peers.json":
            found[file.read_text().strip()] = f"keys/{file.name}"
    yield found
    for name in ("discreet", "given"):
        await remove(easel, name)


async def test_no_secret_is_told_logged_or_stored_in_the_clear(platform: Platform, secrets: dict[str, str]) -> None:
    """Facts, dead letters, events, audit, logs, the stores' files; and rights of the few files that must hold some."""
    assert len(secrets) > 15
    assert all(len(value) > 15 for value in secrets)

    told = await _streams(platform.home)
    told |= {"events": platform.easel("events", "-o", "json").encode()}
    told |= {"audit": platform.easel("audit", "-o", "json").encode()}
    told |= {"explain": platform.easel("explain", "discreet").encode()}
    told |= {"workers": platform.easel("w", "discreet", "-o", "json").encode()}
    told |= {"metrics": platform.easel("metrics", "discreet", "-o", "json").encode()}
    told |= {"status": platform.easel("status", "-o", "json").encode()}
    problems = [
        f"{secrets[value]} in {where}" for where, text in told.items() for value in secrets if value.encode() in text
    ]
    problems += [
        f"{secrets[value]} in {file.relative_to(platform.home)}"
        for file, text in _files(platform.home)
        for value in secrets
        if value.encode() in text
    ]
    assert problems == []


def test_what_holds_secrets_is_readable_by_its_owner_only(platform: Platform, secrets: dict[str, str]) -> None:
    """Keys, master keys, stores, logs, the last good snapshot."""
    private = [*(platform.home / "keys").rglob("*"), *(platform.home / name for name in WITH_TOKENS)]
    private += [platform.home / "control" / "master.key", platform.home / "monitor" / "webhook.key"]
    private += [*(platform.home / "envoy").glob("*.json"), platform.home / "nats" / "nats.conf"]
    open_to_others = [
        str(f.relative_to(platform.home))
        for f in private
        if f.is_file() and stat.S_IMODE(f.stat().st_mode) & 0o077 and not _behind_a_private_directory(f, platform.home)
    ]
    assert open_to_others == []
    assert [f for f in private if f.is_file() and f.stat().st_uid != os.geteuid()] == []


def _behind_a_private_directory(file: Path, home: Path) -> bool:
    return any(
        stat.S_IMODE(d.stat().st_mode) & 0o077 == 0 for d in file.parents if d.is_relative_to(home) and d != home
    )


def _files(home: Path) -> list[tuple[Path, bytes]]:
    """Every file of the platform that is not the place of a secret: logs, stores, what processes keep."""
    found = []
    for file in home.rglob("*"):
        name = str(file.relative_to(home))
        if file.is_file() and not file.is_symlink() and not name.startswith(OWN_FILES) and name not in WITH_TOKENS:
            if name.startswith("envoy/"):
                continue  # each bootstrap holds Envoy's own process token; see the next test
            try:
                found.append((file, file.read_bytes()))
            except FileNotFoundError:
                continue
    return found


async def _streams(home: Path) -> dict[str, bytes]:
    async with stores(home) as (_, bus):
        js = bus.jetstream()
        found = {}
        for stream in (FACTS, DEAD):
            state = (await js.stream_info(stream)).state
            for sequence in range(state.first_seq, state.last_seq + 1 if state.messages else 0):
                message = await js.get_msg(stream, sequence)
                found[f"{stream} #{sequence}"] = (message.data or b"") + str(message.headers).encode()
        return found
