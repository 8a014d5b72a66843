"""A runtime of containers on the machine's engine; whatever a test makes must be gone at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.agent.rig import DockerRig, SmallRig, docker_runtime


@pytest.fixture
async def runtime(short_path: Path, small_image: str, no_leftovers: None) -> AsyncIterator[DockerRig]:
    """Replicas of SMALL_IMAGE."""
    async with docker_runtime(short_path / "agent", kind=SmallRig) as made:
        yield made


@pytest.fixture
async def python_runtime(short_path: Path, engine: str, no_leftovers: None) -> AsyncIterator[DockerRig]:
    """Replicas of the base image, with Python."""
    async with docker_runtime(short_path / "agent") as made:
        yield made
