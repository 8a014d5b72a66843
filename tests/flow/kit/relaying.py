"""A process of its own that relays an outbox until it is killed: `python -m ... ` with settings in the environment."""

from __future__ import annotations

import asyncio

from easel_kit.bus import Bus
from easel_kit.clock import SystemClock
from easel_kit.db import Database
from easel_kit.outbox import Relay
from easel_kit.settings import ProcessSettings, load


async def main() -> None:
    """Relays for ever."""
    settings = load(ProcessSettings, "autoscaler")
    database, bus = Database(settings.db_dsn, "autoscaler"), Bus(settings, "autoscaler")
    await bus.connect()
    await database.open()
    await Relay(database, bus, SystemClock()).run()


if __name__ == "__main__":
    asyncio.run(main())
