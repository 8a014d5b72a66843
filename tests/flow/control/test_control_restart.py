"""Control comes back into the same state; with the wrong master key it does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from easel_contracts import facts
from easel_contracts.facts import KeyState, ServiceState
from easel_control.app import build
from easel_control.keys import ensure_access_key, list_keys
from easel_control.settings import Settings
from easel_control.subscriptions import LISTENS
from easel_control.vault import WrongMasterKey
from easel_kit.db import Database
from easel_kit.run import Process
from easel_kit.testing import eventually, fresh_database, fresh_streams, process_environment
from easel_proto.v1 import services_pb2
from tests.flow.control.conftest import Control
from tests.flow.control.test_control_mutations import create, refused


async def test_a_restart_loses_nothing_and_a_foreign_key_is_refused(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    async with fresh_database(postgres_dsn, "easel_control") as dsns:
        await fresh_streams(nats_url, {"control": LISTENS})
        environment = process_environment(short_path, nats_url, dsns)
        first = Control(short_path, nats_url, environment)
        await first.start()
        made = await create(first)
        await first.stop()

        again = Control(short_path, nats_url, environment)
        await again.start()
        request = services_pb2.GetServiceRequest(name="ocr")
        got = await again.services().Get(request, metadata=again.auth)
        assert (got.token, got.service_id) == (made.token, made.service_id)
        await again.stop()

        (again.settings.home / "master.key").unlink()
        third: Process[Settings] = Process("control", again.settings, LISTENS)
        await third.connect()
        with pytest.raises(WrongMasterKey, match="put the right"):
            await build(third)
        await third.db.close()
        await third.bus.stop()


async def test_the_first_key_is_made_once_and_told(control: Control) -> None:
    """Asked again, nothing happens; a key file that the database does not know becomes known."""
    database: Database = control.process.db
    identity = control.key.split("_")[1]

    assert await ensure_access_key(database, control.directory / "access-key") == identity
    other = await ensure_access_key(database, control.directory / "other")
    assert (control.directory / "other").stat().st_mode & 0o777 == 0o600
    listed = [facts.state_of(f, KeyState) for f in await list_keys(database, control.process.clock)]
    assert {k.id for k in listed} == {identity, other}

    async def told() -> bool:
        keys = [f.key for f in await control.told() if f.type == "key.created"]
        return sorted(keys) == sorted([identity, other])

    await eventually(told)
    await eventually(lambda: control.process.keyring.usable() == 2)


async def test_the_owner_lists_living_and_deleted_services(control: Control) -> None:
    await create(control)
    await control.services().Delete(services_pb2.DeleteServiceRequest(name="ocr"), metadata=control.auth)

    async def gone() -> bool:
        listed = await control.services().List(services_pb2.ListServicesRequest(), metadata=control.auth)
        return not listed.services

    await eventually(gone)
    owned = await control.process._owned["service"]()
    assert [(f.verb, facts.state_of(f, ServiceState).wanted) for f in owned] == [("deleted", "deleted")]
    again = await create(control)
    assert again.generation == 3
    assert (await refused(create(control))).code == "NAME_TAKEN"
