"""`python -m easel_migrate`: runs once and ends; exit code 0 means that every process may start."""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec

from easel_kit.migrations import NewerDatabase
from easel_kit.settings import SettingsError, load
from easel_migrate.app import migrate
from easel_migrate.processes import BadSubscriptions
from easel_migrate.settings import Settings


def main() -> int:
    """Exit code 0: done; 1: refused or failed, with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m easel_migrate", description=__doc__)
    parser.add_argument("--restored", action="store_true", help="the database comes from a backup: raise the epoch")
    arguments = parser.parse_args()
    try:
        settings = load(Settings, "migrate")
        settings = msgspec.structs.replace(settings, restored=settings.restored or arguments.restored)
        for line in asyncio.run(migrate(settings)):
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
