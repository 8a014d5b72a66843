"""Real stores for every test that wants them; started once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from easel_kit.testing import real_nats, real_postgres, short_directory

pytest_plugins = ["tests.docker_rig", "tests.docker_registry", "tests.docker_private"]

# A busy machine must not fail an example by taking long.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for unix sockets."""
    with short_directory() as path:
        yield path


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    """A real nats-server."""
    with short_directory() as path, real_nats(path) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A real PostgreSQL; the administrator's DSN."""
    with short_directory() as path, real_postgres(path) as dsn:
        yield dsn
