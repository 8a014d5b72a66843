"""`python -m easel_migrate`: runs once and ends; exit code 0 means that every process may start."""

from __future__ import annotations

import asyncio
import sys

from easel_kit.migrations import NewerDatabase
from easel_kit.settings import SettingsError, load
from easel_migrate.app import migrate
from easel_migrate.processes import BadSubscriptions
from easel_migrate.settings import Settings


def main() -> int:
    """Exit code 0: done; 1: refused or failed, with the reason on stderr."""
    try:
        for line in asyncio.run(migrate(load(Settings, "migrate"))):
            print(line)
    except TimeoutError:
        print("migrate: PostgreSQL or NATS does not answer (EASEL_DB_DSN, EASEL_NATS_URL)", file=sys.stderr)
        return 1
    except (NewerDatabase, SettingsError, BadSubscriptions) as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
