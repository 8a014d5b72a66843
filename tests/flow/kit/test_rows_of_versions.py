"""Rows that version N wrote, changed by N−1 (this code) through its own stores: what it does not know stays."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from easel_control.model import RevisionRow, ServiceRow
from easel_control.store import Store as ControlStore
from easel_kit.clock import SystemClock
from easel_kit.db import Database, Stale
from easel_kit.testing import fresh_database
from easel_scheduler.decide.world import Reason
from easel_scheduler.model import NodeRow
from easel_scheduler.store import Store as SchedulerStore
from tests.unit.control.rows import NOW, SPEC, row
from tests.unit.scheduler.build import replica

LATER = {"deep": [1, None, {"x": "é"}]}
WHY = Reason("Test", "a test")


async def newer_service(database: Database, service: ServiceRow) -> dict[str, Any]:
    """Has N write over a service: a field more in the row, and in two structs of it."""
    content = msgspec.msgpack.decode(msgspec.msgpack.encode(service))
    content["later"] = content["revision"]["later"] = content["revision"]["traffic"]["later"] = LATER
    async with database.connection() as connection:
        await connection.execute("UPDATE services SET data = $1", msgspec.msgpack.encode(content))
    return dict(content)


async def service_content(database: Database) -> dict[str, Any]:
    async with database.connection() as connection:
        return dict(msgspec.msgpack.decode(await connection.fetchval("SELECT data FROM services")))


async def test_control_n_minus_1_keeps_what_n_put_into_services_and_revisions(postgres_dsn: str) -> None:
    """A status change keeps all; a new revision keeps what does not belong to the old one; a label can go."""
    async with fresh_database(postgres_dsn, "easel_control") as dsns:
        database = Database(dsns["control"], "control")
        await database.open()
        store = ControlStore(database, SystemClock())
        async with database.transaction() as connection:
            await store.insert(connection, row(labels={"team": "a", "tier": "x"}))
        content = await newer_service(database, row(labels={"team": "a", "tier": "x"}))

        async with database.transaction() as connection:
            read = await store.get("default", "ocr", connection)
            assert read is not None
            await store.update(connection, replace(read, row_version=2, status="Running"))

        assert await service_content(database) == {**content, "row_version": 2, "status": "Running"}
        with pytest.raises(Stale):
            async with database.transaction() as connection:
                await store.update(connection, replace(read, row_version=2, status="Failed"))

        async with database.transaction() as connection:
            after = replace(read, row_version=3, labels={"team": "a"}, revision=replace(SPEC, number=2))
            await store.update(connection, after)

        found = await service_content(database)
        assert await store.get("default", "ocr") == after
        assert found["later"] == found["revision"]["traffic"]["later"] == LATER
        assert "later" not in found["revision"]
        assert found["labels"] == {"team": "a"}
        await _revision_moves_on(database, store)
        await database.close()


async def _revision_moves_on(database: Database, store: ControlStore) -> None:
    written = RevisionRow(workspace="default", name="ocr", number=1, state="admitted", spec=SPEC, config_shown="{}",
                          env_sealed=b"e", created_at=NOW)  # fmt: skip
    content = msgspec.msgpack.decode(msgspec.msgpack.encode(written))
    content["spec"]["later"] = LATER
    async with database.transaction() as connection:
        await store.add_revision(connection, written)
        await connection.execute("UPDATE revisions SET data = $1", msgspec.msgpack.encode(content))
        await store.revision_state(connection, written, "live")
        found = msgspec.msgpack.decode(await connection.fetchval("SELECT data FROM revisions"))

    assert found == {**content, "state": "live"}
    with pytest.raises(Stale):
        async with database.transaction() as connection:
            await store.revision_state(connection, written, "failed")


async def test_scheduler_n_minus_1_keeps_what_n_put_into_replicas_and_nodes(postgres_dsn: str) -> None:
    """A report of an agent, written by the older one, keeps the fields of the newer one; so does a node's new state."""
    async with fresh_database(postgres_dsn, "easel_scheduler") as dsns:
        database = Database(dsns["scheduler"], "scheduler")
        await database.open()
        store = SchedulerStore(database, "default")
        made = replica("ocr-1-aaaaa", "placed")
        node = NodeRow(id="local", workspace="default", state="ready", row_version=0, agent_addr="a", address="b",
                       network="host", cpu=2.0, memory_mib=100, isolation="", limits="", can_mount=True,
                       agent_run_id="r", last_seen_at=NOW)  # fmt: skip
        async with database.transaction() as connection:
            await store.insert(connection, made, WHY, 1)
            await store.write_node(connection, node, WHY, 1)
            for table in ("replica", "node"):
                await connection.execute(
                    f"UPDATE {table} SET data = data || jsonb_build_object('later', $1::jsonb)", json.dumps(LATER)
                )
            await connection.execute("UPDATE replica SET data = jsonb_set(data, '{spec,later}', '7')")

        async with database.transaction() as connection:
            after = await store.update(connection, replace(made, state="ready", pid=7), WHY, life_token=1)
            await store.write_node(connection, replace(node, row_version=1, state="lost"), WHY, 1)
            one = json.loads(await connection.fetchval("SELECT data FROM replica"))
            other = json.loads(await connection.fetchval("SELECT data FROM node"))

        assert await store.replica(made.id) == after
        assert (one["later"], one["spec"]["later"], one["state"], one["pid"]) == (LATER, 7, "ready", 7)
        assert (other["later"], other["state"], other["row_version"]) == (LATER, "lost", 2)
        with pytest.raises(Stale):
            async with database.transaction() as connection:
                await store.write_node(connection, replace(node, row_version=1), WHY, 1)
        with pytest.raises(Stale):
            async with database.transaction() as connection:
                await store.update(connection, made, WHY)
        await database.close()
