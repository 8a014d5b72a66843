"""A platform for each test."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.flow.sdk.platform import Platform, running


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform moves on with each look, so none needs to be waited for."""
    monkeypatch.setattr("easel_sdk.looking.LOOK_EVERY_S", 0.02)


@pytest.fixture
def platform() -> Iterator[Platform]:
    """A small platform with the real APIs."""
    with running() as found:
        yield found


@pytest.fixture
def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
