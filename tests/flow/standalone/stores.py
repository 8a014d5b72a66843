"""The platform's own NATS and PostgreSQL, started as the supervisor starts them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import nats
from nats.aio.client import Client

from easel_standalone import life, ports
from easel_standalone.home import Config, Home
from easel_standalone.keys import Keys
from easel_standalone.plans import Plans
from easel_standalone.stores.postgres import Postgres, RunAs, choose_user
from easel_standalone.supervisor import Supervisor


class Stores:
    """One home with its two stores."""

    def __init__(self, root: Path, run_as: RunAs | None = None) -> None:
        self.home = Home(root)
        self.home.prepare()
        config = self.home.config()
        self.config: Config = msgspec.structs.replace(config, nats_port=ports.choose_nats(config.nats_port))
        self.home.save(self.config)
        self.keys = Keys(self.home)
        self.keys.ensure()
        self.database = Postgres(self.home, self.keys, run_as or choose_user())
        self.plans = Plans(self.home, self.config, self.keys, self.database)
        self.lines: list[str] = []
        self.supervisor = Supervisor(self.home, self.config, self.lines.append)

    async def start(self) -> None:
        """Both ready."""
        life.prepare_database(self.database)
        bus = self.supervisor.add(self.plans.nats())
        await self.supervisor.wait_ready([bus, self.supervisor.add(self.plans.postgres())])

    async def client(self, user: str, error_cb: Callable[[Exception], object] | None = None) -> Client:
        """A NATS connection as a user."""

        async def on_error(error: Exception) -> None:
            if error_cb:
                error_cb(error)

        return await nats.connect(
            f"nats://127.0.0.1:{self.config.nats_port}", nkeys_seed_str=self.keys.seed(user).read_text(),
            inbox_prefix=f"_INBOX_{user}", error_cb=on_error, reconnect_time_wait=0.05,
        )  # fmt: skip


@asynccontextmanager
async def running(root: Path, run_as: RunAs | None = None) -> AsyncIterator[Stores]:
    """Stores that are stopped in the end."""
    stores = Stores(root, run_as)
    try:
        await stores.start()
        yield stores
    finally:
        await stores.supervisor.stop()
