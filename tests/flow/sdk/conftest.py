"""A platform for each test."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.flow.sdk.platform import Platform, running


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
