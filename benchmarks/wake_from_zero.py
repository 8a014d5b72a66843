"""Part two of held_requests.py: the first request at zero → its answer, on a whole platform, and where it goes."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from create_to_first_200 import SERVER, by_hand_s, remove
from measuring import Poller, own_platform, quantile, verdict

from easel_kit.testing import eventually
from easel_sdk import Client

GATE_MS = 300.0
IDLE_S = 3
"""The shortest grace: from the last request to zero."""
NAME = "zero"
ASKED, ANSWERED = "request", "answer"
FACTS = ("scale.decided", "replica.placed", "replica.starting", "replica.ready", "route.applied")


def document(code: Path) -> dict[str, Any]:
    return {
        "metadata": {"name": NAME, "instance": 0, "cpu": 1, "memory": 128},
        "containers": [{"port": 8000, "command": "python server.py"}],
        "storage": [{"mount_path": "/code", "local": {"path": str(code)}}],
        "autoscaler": {
            "min": 0,
            "max": 1,
            "strategies": {"concurrency": 1000},
            "behavior": {
                "onZero": {"scaleDownGracePeriodSeconds": IDLE_S},
                "scaleDown": {"stabilizationWindowSeconds": IDLE_S},
            },
        },
    }


async def at_zero(client: Client) -> None:
    """Returns once no replica is left, requests are held, and everybody has said so."""

    async def none_left() -> bool:
        service, route = await client.services.get(NAME), await client.routes.get(NAME)
        replicas = [r for r in await client.replicas.list(NAME) if r.status not in ("stopped", "failed", "lost")]
        return service.reason == "ScaledToZero" and route.holding and not replicas

    await eventually(none_left, 60)


async def newest(client: Client) -> int:
    """Sequence of the service's last event."""
    found = 0
    async for event in client.events.watch(key=NAME, from_sequence=1, follow=False):
        found = event.sequence
    return found


async def split_ms(client: Client, after: int, asked_unix_s: float, answered_unix_s: float) -> dict[str, float]:
    """From the request over the facts to the answer; beside it the replica's own phases."""
    at: dict[str, float] = {ASKED: asked_unix_s}
    async for event in client.events.watch(key=NAME, from_sequence=after + 1, follow=False):
        # of the routes only the one that has the replica counts, which is the last
        if event.type in FACTS and (event.type == "route.applied" or event.type not in at):
            at[event.type] = event.at.ToNanoseconds() / 1e9
    at[ANSWERED] = answered_unix_s
    steps = [step for step in (ASKED, *FACTS[:-1], ANSWERED) if step in at]
    found = {f"{before} → {after_}": 1000 * (at[after_] - at[before]) for before, after_ in pairwise(steps)}
    if {"replica.ready", "route.applied"} <= set(at):  # told when the held request is on its way already
        found["(replica.ready → route.applied)"] = 1000 * (at["route.applied"] - at["replica.ready"])
    replica = next(r for r in await client.replicas.list(NAME) if r.ready)
    return found | {f"(phase {phase})": 1000 * replica.phase_s.get(phase, 0.0)
                    for phase in ("schedule", "fetch", "mount", "start", "probe")}  # fmt: skip


async def wake(client: Client, token: str) -> tuple[float, dict[str, float]]:
    """One first request: ms until it is answered, and the split."""
    await at_zero(client)
    after = await newest(client)
    poller = Poller(client.target.data_url, f"/api/predict/{NAME}")
    asked_s, asked_unix_s = time.perf_counter(), time.time()
    status = await poller.ask(token)
    took_s = time.perf_counter() - asked_s
    poller.close()
    if status != 200:
        raise SystemExit(f"the first request at zero was answered {status}")
    await asyncio.sleep(0.5)  # the monitor hears of the route, too
    return 1000 * took_s, await split_ms(client, after, asked_unix_s, asked_unix_s + took_s)


async def rounds(home: Path, count: int) -> tuple[list[float], list[float], list[dict[str, float]]]:
    """Own starts and first answers, both in ms, and the split of each."""
    code = home.parent / "code"
    code.mkdir()
    (code / "server.py").write_text(SERVER)
    own, answered, split = [], [], []
    async with Client(home=home) as client:
        created = await client.services.create(document(code))
        await client.wait(NAME, generation=created.generation, timeout_s=60)
        for number in range(count + 1):
            own_s = by_hand_s(code)
            took_ms, where = await wake(client, created.token)
            if number:  # the first fills caches on both sides
                own.append(1000 * own_s)
                answered.append(took_ms)
                split.append(where)
        await remove(client, NAME)
    return own, answered, split


def measure(count: int) -> bool:
    """Whether the gate is met."""
    with own_platform() as home:
        own, answered, split = asyncio.run(rounds(home, count))
    added = [whole - alone for whole, alone in zip(answered, own, strict=True)]
    print(f"first request at zero, whole platform, {count} rounds:")
    for name in dict.fromkeys(key for row in split for key in row):
        values = [row[name] for row in split if name in row]
        print(f"  {name:<44} median {statistics.median(values):7.1f} ms   max {max(values):7.1f}")
    print(f"own start:        median {statistics.median(own):7.1f} ms   max {max(own):7.1f}")
    print(f"request → answer: median {statistics.median(answered):7.1f} ms   p90 {quantile(answered, 0.9):7.1f}")
    print(f"added:            median {statistics.median(added):7.1f} ms   max {max(added):7.1f}")
    met = verdict("first request at zero → answer, over own start (median)", statistics.median(added), GATE_MS, "ms")
    sys.stdout.flush()
    return met
