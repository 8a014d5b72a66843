"""One autoscaler per test, on a database and streams of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from easel_autoscaler.subscriptions import LISTENS
from easel_kit.testing import fresh_database, fresh_streams, process_environment
from tests.flow.autoscaler.world import World, started


@pytest.fixture
async def environment(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[dict[str, str]]:
    async with fresh_database(postgres_dsn, "easel_autoscaler") as dsns:
        await fresh_streams(nats_url, {"autoscaler": LISTENS})
        yield process_environment(short_path, nats_url, dsns)["autoscaler"]


@pytest.fixture
async def world(environment: dict[str, str]) -> AsyncIterator[World]:
    async with started(environment) as world:
        yield world
