"""One platform for all end-to-end tests; each test has services of its own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from easel_sdk import Client
from tests.e2e.platform import Chosen, Platform, running_platform


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """A running platform."""
    with (
        tempfile.TemporaryDirectory(prefix="easel-e2e-") as directory,
        running_platform(Path(directory) / "home") as found,
    ):
        yield found


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once with replicas as processes, once as containers: `pytestmark = pytest.mark.usefixtures("runtime")`."""
    if request.param == "docker":
        request.getfixturevalue("engine")
    monkeypatch.setattr(Chosen, "runtime", request.param)
    return str(request.param)


@pytest.fixture
async def easel(platform: Platform) -> AsyncIterator[Client]:
    """The SDK, connected to it."""
    async with platform.client() as client:
        yield client
