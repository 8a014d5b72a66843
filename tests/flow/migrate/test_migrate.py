"""migrate on the platform's own stores: once, twice, both at once, and on a database of the future."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import msgspec
import pytest

from easel_kit import streams
from easel_kit.migrations import NewerDatabase
from easel_migrate import app, database
from easel_migrate.processes import WITH_SCHEMA, listens
from easel_migrate.settings import Settings
from easel_standalone.stores.postgres import ADMIN
from tests.flow.standalone.stores import Stores, running


@pytest.fixture
async def stores(short_path: Path) -> AsyncIterator[Stores]:
    """Empty stores."""
    async with running(short_path) as found:
        yield found


def settings_of(stores: Stores) -> Settings:
    """As the supervisor sets them."""
    return Settings(
        db_dsn=stores.database.dsn(ADMIN), db_password_file=stores.keys.admin_password,
        passwords_dir=stores.keys.passwords, nats_url=f"nats://127.0.0.1:{stores.config.nats_port}",
        nats_seed_file=stores.keys.seed("migrate"), access_key_file=stores.home.access_key_file, wait_s=10,
    )  # fmt: skip


async def _connect(stores: Stores, role: str, password: str) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(stores.database.dsn(role), password=stores.keys.password(password).read_text())


async def test_twice_is_once(stores: Stores) -> None:
    """Everything is there after the first; the second runs no step."""
    settings = settings_of(stores)
    await app.migrate(settings)
    again = await app.migrate(settings)

    client = await stores.client("migrate")
    js = client.jetstream()

    assert not [line for line in again if line.startswith(("schema", "access key"))]
    assert stores.home.access_key_file.read_text().startswith("ek_")
    assert stat.S_IMODE(stores.home.access_key_file.stat().st_mode) == 0o600
    for process in WITH_SCHEMA:
        info = await js.consumer_info(streams.FACTS, process)
        assert streams.drift(streams.consumer_config(process, listens(process)), info.config) == []
    await client.close()


async def test_copies_at_once_do_not_disturb_each_other(stores: Stores) -> None:
    """Several nodes may start together."""
    settings = settings_of(stores)

    await asyncio.gather(*(app.migrate(settings) for _ in range(3)))

    admin = await asyncpg.connect(settings.db_dsn, password=stores.keys.admin_password.read_text())
    assert await admin.fetchval("SELECT value FROM easel.epoch") == 1
    await admin.close()


async def test_role_sees_its_own_schema_only(stores: Stores) -> None:
    """Nobody touches another's tables; the epoch is read-only."""
    await app.migrate(settings_of(stores))
    control = await _connect(stores, "easel_control", "control")

    await control.fetch("SELECT * FROM control.outbox")

    for forbidden in (
        "SELECT * FROM scheduler.outbox",
        "UPDATE easel.epoch SET value = 9",
        "CREATE TABLE public.mine (x int)",
        "CREATE SCHEMA mine",
        "DROP TABLE control.outbox",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await control.execute(forbidden)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await _connect(stores, "easel_control", "router")
    await control.close()


async def test_newer_database_is_refused_before_anything_changes(stores: Stores) -> None:
    """A downgrade would run old code on tables it does not know."""
    settings = settings_of(stores)
    await app.migrate(settings)
    admin = await database.connect(settings)
    await admin.execute("INSERT INTO router.migrations (name) VALUES ('own/999_future.sql')")
    await admin.execute("DROP SCHEMA control CASCADE")

    with pytest.raises(NewerDatabase, match="999_future"):
        await app.migrate(settings)

    assert await admin.fetchval("SELECT to_regclass('control.outbox')") is None
    await admin.close()


async def test_restored_database_gets_a_new_epoch(stores: Stores) -> None:
    """Readers then believe what is told from now on, although its versions are lower than what they have seen."""
    settings = settings_of(stores)
    await app.migrate(settings)

    said = await app.migrate(msgspec.structs.replace(settings, restored=True))
    await app.migrate(settings)

    admin = await database.connect(settings)
    assert "epoch 2" in said
    assert await admin.fetchval("SELECT value FROM easel.epoch") == 2
    await admin.close()


async def test_store_that_is_away_is_told(stores: Stores, tmp_path: Path) -> None:
    """It waits for its time and then says so."""
    settings = msgspec.structs.replace(settings_of(stores), nats_url="nats://127.0.0.1:1", wait_s=0.5)

    with pytest.raises(TimeoutError):
        await app.migrate(settings)
