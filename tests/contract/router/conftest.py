"""One Envoy and three model servers for all tests of a file; each test takes services of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from easel_router.testing import Envoy, Rig, rig
from tests.flow.router.backends import Backend, backends


@pytest.fixture
async def servers() -> AsyncIterator[list[Backend]]:
    async with backends(3) as made:
        yield made


@pytest.fixture
async def xds(short_path: Path) -> AsyncIterator[Rig]:
    async with rig(short_path) as made:
        yield made


@pytest.fixture
async def envoy(xds: Rig) -> Envoy:
    return await xds.envoy()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session
