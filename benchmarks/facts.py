"""Facts to a process: how fast a backlog is handled, and how soon a fact that comes after a quiet time.

Real NATS and PostgreSQL. Consumers side by side: Easel's, which asks for as many facts as wait, one that always asks
for one, one that always asks for 64; each handler writes a row in a transaction of its own, as projections do.

    python benchmarks/facts.py [--backlog 5000] [--keys 1000] [--quiet 15]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncpg
import nats
from faststream.nats import PullSub
from measuring import quantile, verdict
from nats.aio.client import Client

from easel_contracts import facts
from easel_contracts.facts import Fact
from easel_kit import bus as buses
from easel_kit.bus import Bus
from easel_kit.db import POOL_SIZE
from easel_kit.testing import (
    eventually,
    fresh_database,
    fresh_streams,
    plain_settings,
    real_nats,
    real_postgres,
    short_directory,
)
from tests.flow.kit.test_facts_of_many_keys import fact

WAYS = {"scheduler": "as many as wait", "autoscaler": "always 1", "router": "always 64"}
"""Process whose consumer is used → facts that one request asks for. The first is Easel's."""
FEW = (1, 2, 5, 20)
AGAIN_S = 2 * buses.FETCH_TIMEOUT_S
LEAST_RATE, LONGEST_MS = 0.8, 250.0


class Always(PullSub):
    """Keeps its size, whoever changes it."""

    def __init__(self, size: int, *, batch_size: int, timeout: float) -> None:
        super().__init__(batch_size=size, timeout=timeout)

    def __setattr__(self, name: str, value: object) -> None:
        if not hasattr(self, name):
            super().__setattr__(name, value)


class Reader:
    """One consumer; notes when each fact was handled."""

    def __init__(self, process: str, pool: asyncpg.Pool) -> None:
        self.process, self._pool = process, pool
        self.at_s: dict[tuple[str, int], float] = {}

    async def on_scale(self, told: Fact) -> None:
        await self._pool.execute(
            "INSERT INTO handled VALUES ($1, $2, $3) ON CONFLICT (process, key) DO UPDATE SET number = excluded.number",
            self.process, told.key, told.row_version,
        )  # fmt: skip
        self.at_s[told.key, told.row_version] = time.perf_counter()

    @asynccontextmanager
    async def at_work(self, path: Path, nats_url: str) -> AsyncIterator[None]:
        """Handles facts while inside."""
        bus = Bus(plain_settings(path, nats_url, self.process, {}), self.process)
        await bus.connect()
        always = WAYS[self.process].removeprefix("always ")
        with mock.patch.object(buses, "PullSub", partial(Always, int(always)) if always.isdigit() else PullSub):
            bus.on_facts({"scale": self.on_scale})
        await bus.start()
        try:
            yield
        finally:
            await bus.stop()


async def tell(client: Client, keys: list[str], number: int) -> None:
    """One fact of each key."""
    for key in keys:
        told = fact(key, number)
        await client.jetstream().publish(told.subject, facts.encode(told))


async def rate(reader: Reader, path: Path, nats_url: str, count: int) -> float:
    """Facts a second, of a backlog."""
    async with reader.at_work(path, nats_url):
        await eventually(lambda: len(reader.at_s) >= count, 120)
    at_s = sorted(reader.at_s.values())
    return (len(at_s) - 1) / (at_s[-1] - at_s[0])


def all_in(wanted: list[tuple[str, int]], readers: list[Reader]) -> bool:
    return all(one in reader.at_s for reader in readers for one in wanted)


async def delays_ms(readers: list[Reader], client: Client, rounds: int) -> dict[str, list[float]]:
    """From a fact's acknowledgement by the stream to its end, after each of so many quiet times."""
    found: dict[str, list[float]] = {reader.process: [] for reader in readers}
    for number in range(rounds):
        await asyncio.sleep(random.uniform(buses.FETCH_TIMEOUT_S, AGAIN_S))
        keys = [f"quiet{n}" for n in range(random.choice(FEW))]
        await tell(client, keys, number + 1)
        told_s, last = time.perf_counter(), [(key, number + 1) for key in keys]
        await eventually(partial(all_in, last, readers), 30)
        for reader in readers:
            found[reader.process].append((max(reader.at_s[one] for one in last) - told_s) * 1000)
    return found


async def measure(path: Path, nats_url: str, dsn: str, args: argparse.Namespace) -> bool:
    await fresh_streams(nats_url, dict.fromkeys(WAYS, ("scale",)))
    client = await nats.connect(nats_url)
    async with asyncpg.create_pool(dsn, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        await pool.execute("CREATE TABLE handled (process text, key text, number bigint, PRIMARY KEY (process, key))")
        readers = [Reader(process, pool) for process in WAYS]
        keys = [f"svc{n}" for n in range(args.keys)]
        for number in range(args.backlog // args.keys):
            await tell(client, keys, number + 1)
        rates = {reader.process: await rate(reader, path, nats_url, args.backlog) for reader in readers}
        async with AsyncExitStack() as at_work:
            for reader in readers:
                await at_work.enter_async_context(reader.at_work(path, nats_url))
            delays = await delays_ms(readers, client, args.quiet)
    await client.close()
    return report(rates, delays)


def report(rates: dict[str, float], delays: dict[str, list[float]]) -> bool:
    for process, way in WAYS.items():
        late = delays[process]
        print(f"{way:>15} a request: {rates[process]:6.0f} facts/s of a backlog; a few after a quiet time are handled "
              f"after p50 {quantile(late, 0.5):.1f}, max {max(late):.1f} ms")  # fmt: skip
    ours = next(iter(WAYS))
    rate = rates[ours] / max(rates.values())
    met = [
        verdict("facts/s of a backlog, beside the best way to ask", rate, LEAST_RATE, "x", at_least=True),
        verdict(
            f"facts after a quiet time handled (worst of {len(delays[ours])})", max(delays[ours]), LONGEST_MS, "ms"
        ),
    ]
    return all(met)


def main() -> int:
    """Exit code 0 where the gates hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlog", type=int, default=5000)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--quiet", type=int, default=15, help="quiet times")
    arguments = parser.parse_args()

    async def run() -> bool:
        with short_directory() as path, real_nats(path) as nats_url:
            (postgres := path / "pg").mkdir()
            with real_postgres(postgres) as dsn:
                async with fresh_database(dsn, "easel_scheduler") as dsns:
                    admin = dsns["scheduler"].replace("scheduler@", "postgres@")
                    return await measure(path, nats_url, admin, arguments)

    return 0 if asyncio.run(run()) else 1


if __name__ == "__main__":
    sys.exit(main())
