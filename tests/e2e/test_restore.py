"""The control plane's state comes from a backup: what was told after it counts no more, and agents obey again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from easel_kit.testing import eventually
from tests.e2e.consistency import read_stream, stores
from tests.e2e.platform import Platform, deploy, remove, running_platform, spec


def _copy(source: Path, target: Path) -> None:
    """With owners and rights."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


async def _answers(platform: Platform, name: str, token: str) -> int:
    async with (
        aiohttp.ClientSession(headers={"Authorization": token}) as session,
        session.get(f"{platform.data_url}/api/predict/{name}") as answer,
    ):
        return answer.status


async def _answers_with(platform: Platform, service: Any, status: int) -> bool:
    return await _answers(platform, service.service_name, service.token) == status


@pytest.mark.timeout(240)
async def test_a_restored_platform_goes_on_from_its_backup(tmp_path: Path) -> None:
    """docs/operations.md, to the letter: put postgres/ back, `easel up --restored`. NATS keeps the later facts."""
    with running_platform(tmp_path / "home") as platform:
        data, backup = platform.home / "postgres", tmp_path / "backup"
        async with platform.client() as client:
            kept: Any = await deploy(client, spec("kept", instance=2))
        platform.down()
        _copy(data, backup)

        platform.up()
        async with platform.client() as client:
            await client.wait("kept", timeout_s=60)
            later: Any = await deploy(client, spec("later"))
            for _ in range(2):  # fencing tokens rise, and the agent remembers the highest
                await platform.kill("scheduler")
                scaled = await client.services.scale("kept", 1)
                await client.wait("kept", generation=scaled.generation, timeout_s=60)
                scaled = await client.services.scale("kept", 3)
                await client.wait("kept", generation=scaled.generation, timeout_s=60)
        platform.down()
        shutil.rmtree(data)
        _copy(backup, data)

        platform.easel("up", "--restored", "--detach")

        async with platform.client() as client:

            async def whole() -> bool:
                service = await client.services.get("kept")
                return (service.generation, service.running_instance) == (kept.generation, 2)

            await eventually(whole, 60)
            assert [s.service_name for s in await client.services.list()] == ["kept"]
            await eventually(lambda: _answers_with(platform, kept, 200), 60)
            assert await _answers(platform, "later", later.token) == 404
            scaled = await client.services.scale("kept", 3)
            await client.wait("kept", generation=scaled.generation, timeout_s=60)
            again: Any = await deploy(client, spec("later"))
            assert await _answers_with(platform, again, 200)
            await _only_the_new_epoch_counts(platform.home)
            for name in ("kept", "later"):
                await remove(client, name)


async def _only_the_new_epoch_counts(home: Path) -> None:
    """The stream holds newer versions of the old epoch; nobody believes them."""
    async with stores(home) as (database, bus):
        told = [t for t in await read_stream(bus) if t.known == ("service", "default", "kept")]
        assert {t.version[0] for t in told} == {1, 2}
        row = await database.fetchval("SELECT row_version FROM control.services WHERE name = 'kept'")
        assert max(t.version[1] for t in told if t.version[0] == 1) > 0

        async def believed() -> bool:
            for process in ("scheduler", "router", "autoscaler", "monitor"):
                found = await database.fetchrow(
                    f"SELECT epoch, row_version FROM {process}.projection WHERE entity = 'service' AND id = 'kept'"
                )
                assert found is not None
                assert (found["epoch"], found["row_version"]) == (2, row)
            return True

        await eventually(believed)
