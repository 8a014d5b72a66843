"""API commit → live on Envoy: a service gets another token; how soon does the data listener take it?

From the row's own time (`update_time`, set in the transaction just before it commits) to the first answer to a request
with the new token that is not 401, asked every few ms; with one service, then with `--services`. One service has a
replica and answers 200, the others are stopped and answer 503: their routes are as long. Beside it, from the same
platform, the router's own time: decision → acknowledged and probed (`apply_ms` of `route.applied`).

    python benchmarks/commit_to_live.py [--services 100] [--changes 150]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

from measuring import Poller, own_platform, quantile, verdict

from easel_contracts.ids import uuid7
from easel_sdk import Client

LIVE_GATE_MS, APPLY_GATE_MS = 60.0, 100.0
SERVER = "python -m http.server --bind 127.0.0.1 $PORT"


def document(name: str, cpu: float) -> dict[str, object]:
    return {
        "metadata": {"name": name, "instance": 1, "cpu": cpu, "memory": 64},
        "containers": [{"port": 8000, "command": SERVER}],
    }


async def populate(client: Client, count: int) -> list[str]:
    """One service that runs, the others without replicas: they wait for more cores than there are, then stop."""
    first = await client.services.create(document("live_0", 0.1))
    await client.wait(first.service_name, generation=first.generation, timeout_s=90)
    names = [f"live_{n}" for n in range(1, count)]
    for name in names:
        await client.services.create(document(name, 1024))
        await client.services.stop(name)
    for name in names:
        await client.wait(name, "stopped", timeout_s=90)
    return ["live_0", *names]


async def change_ms(client: Client, name: str) -> tuple[float, float]:
    """Gives a service a new token; ms from its row's time, and from the call, to the first answer to it."""
    token = f"bench-{uuid7()}"
    poller = Poller(client.target.data_url, f"/api/predict/{name}/")
    await poller.ask(token)  # opens the connection
    called, wall_less_clock = time.perf_counter(), time.time() - time.perf_counter()
    updating = asyncio.create_task(client.services.update(name, {"token": token}))
    live = await poller.until(token, lambda status: status in (200, 503))
    updated = await updating
    poller.close()
    written = updated.update_time.ToNanoseconds() / 1e9 - wall_less_clock
    return (live - written) * 1000, (live - called) * 1000


async def apply_ms(client: Client, after: int) -> tuple[list[float], int]:
    """The router's own time of each route applied since a sequence, and the newest sequence."""
    found: list[float] = []
    newest = after
    async for event in client.events.watch(entity="route", from_sequence=after + 1, follow=False):
        newest = event.sequence
        if event.type == "route.applied" and (took := json.loads(event.data_json).get("apply_ms")):
            found.append(took)
    return found, newest


async def round_(client: Client, names: list[str], changes: int) -> tuple[list[float], list[float]]:
    """(apply_ms, commit → live in ms) of so many changes, one at a time."""
    _, newest = await apply_ms(client, 0)
    from_row, from_call = [], []
    for number in range(changes + 5):
        row_ms, call_ms = await change_ms(client, random.choice(names))
        if number >= 5:  # the first open connections and prepare statements
            from_row.append(row_ms)
            from_call.append(call_ms)
    await asyncio.sleep(0.5)
    applied, _ = await apply_ms(client, newest)
    many = f"{len(names):>4} services: "
    print(f"{many}{line('call → live', from_call)}")
    print(f"{many}{line('commit → live', from_row)}")
    print(f"{many}{line('decision → acknowledged and probed', applied)}")
    return applied, from_row


def line(what: str, values: list[float]) -> str:
    quantiles = ", ".join(f"p{q * 100:g} {quantile(values, q):.1f}" for q in (0.5, 0.9, 0.99))
    return f"{what:<36} n {len(values):>4}, {quantiles}, max {max(values):.1f} ms"


async def measure(home: Path, services: int, changes: int) -> bool:
    async with Client(home=home) as client:
        names = await populate(client, 1)
        _, one = await round_(client, names, changes)
    async with Client(home=home) as client:
        await client.services.delete("live_0")
        await client.wait("live_0", "deleted", timeout_s=60)
        names = await populate(client, services)
        applied, many = await round_(client, names, changes)
    met = [
        verdict("API commit → live, 1 service (p50)", quantile(one, 0.5), LIVE_GATE_MS, "ms"),
        verdict(f"API commit → live, {services} services (p50)", quantile(many, 0.5), LIVE_GATE_MS, "ms"),
        verdict(f"decision → probed on the platform, {services} services (p99)", quantile(applied, 0.99),
                APPLY_GATE_MS, "ms"),
    ]  # fmt: skip
    return all(met)


def main() -> int:
    """Exit code 0 where the gates hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--changes", type=int, default=150)
    arguments = parser.parse_args()
    with own_platform() as home:
        met = asyncio.run(measure(home, arguments.services, arguments.changes))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
