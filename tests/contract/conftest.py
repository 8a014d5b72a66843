"""The runtimes that the contract suite runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.agent.rig import Rig, runtime_of


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def kind(request: pytest.FixtureRequest) -> str:
    """Which runtime."""
    return str(request.param)


@pytest.fixture
async def runtime(short_path: Path, kind: str) -> AsyncIterator[Rig]:
    """A runtime."""
    async with runtime_of(kind, short_path / "agent") as made:
        yield made
