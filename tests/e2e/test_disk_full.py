"""The disk under the home is full: changes are refused and say so, services go on, and with space all goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from easel_kit.testing import eventually, short_directory
from easel_sdk import Client
from easel_sdk.errors import EaselError
from tests.e2e.consistency import assert_consistent
from tests.e2e.load import steady_load
from tests.e2e.platform import deploy, remove, running_platform, spec

SIZE_MIB = 2600
"""A little more than a new platform asks for; kept in memory, of which filling it takes as much."""


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own."""
    with short_directory() as path:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(path)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a small file system needs root")
        yield path
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(file: Path) -> None:
    """Takes every byte that is left."""
    with open(file, "wb", buffering=0) as filler:
        for size in (1 << 20, 1 << 12):
            try:
                while filler.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue


async def refused(client: Client, name: str, instance: int) -> str:
    """What a change is answered with: `` when it was taken."""
    try:
        await client.services.scale(name, instance)
    except EaselError as error:
        return f"{error.code}: {error.message}; {error.hint}"
    return ""


@pytest.mark.soak
@pytest.mark.timeout(420)
async def test_services_go_on_while_the_disk_is_full(small_disk: Path) -> None:
    """Not one request fails; a change is refused with a sentence; what was taken before arrives afterwards."""
    with running_platform(small_disk / "home") as platform:
        async with platform.client() as client:
            service = await deploy(client, spec("steady"))
            await deploy(client, spec("changed"))
            async with steady_load(service.endpoint, service.token, clients=2) as load:
                await load.answered_more(50)
                filler = small_disk / "filler"
                await asyncio.to_thread(fill, filler)
                instance, said = 1, ""

                async def one_is_refused() -> bool:
                    nonlocal instance, said
                    instance = 3 - instance
                    said = await refused(client, "changed", instance)
                    await asyncio.to_thread(fill, filler.with_suffix(f".{len(load.executions)}"))
                    return bool(said)

                await eventually(one_is_refused, 120)
                assert len(said) > 20
                await load.answered_more(200)
                for file in small_disk.glob("filler*"):
                    file.unlink()

                async def taken() -> bool:
                    nonlocal instance
                    instance = 3 - instance
                    return await refused(client, "changed", instance) == ""

                await eventually(taken, 120)
                await load.answered_more(100)
            print(f"refused with: {said}")
            assert load.failed() == []
            now = await client.services.get("changed")
            await client.wait("changed", generation=now.generation, timeout_s=120)
            await assert_consistent(platform.home, 120)
            for name in ("steady", "changed"):
                await remove(client, name)
