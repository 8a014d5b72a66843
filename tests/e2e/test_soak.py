"""Minutes of load and changes with random parts killed at random moments; every failed request has a known cause.

Seeded: EASEL_SOAK_SEED repeats a run's choices, EASEL_SOAK_S sets its length, EASEL_SOAK_RESULT a file for what was
counted (tools/soak.py puts it into docs/soak.md).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec import Struct

from easel_contracts.errors import Unavailable
from easel_kit.testing import eventually
from easel_sdk import Client
from tests.e2e.churn import churning
from tests.e2e.consistency import assert_consistent
from tests.e2e.load import Load, steady_load
from tests.e2e.platform import Platform, deploy, remove, spec

LENGTH_S = float(os.environ.get("EASEL_SOAK_S", "300"))
SEED = int(os.environ.get("EASEL_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
HARMLESS = ("control", "scheduler", "autoscaler", "router", "monitor", "nats", "postgres")
"""Parts whose death may cost no request."""
KILLS = (*HARMLESS, *HARMLESS, "envoy", "replica", "replica", "agent")
CLIENTS = 3

Method = Literal["GET", "POST"]


class Window(Struct):
    """A time in which requests may fail, and why."""

    cause: str
    begins: float
    ends: float = float("inf")


class Soak:
    """The killing, and what it was told to leave behind."""

    def __init__(self, platform: Platform, easel: Client, services: dict[Method, str], chance: random.Random) -> None:
        self._platform, self._easel, self._services, self._chance = platform, easel, services, chance
        self.kills: Counter[str] = Counter()
        self.windows: list[Window] = []

    async def go_on(self, until: float) -> None:
        """Kills at random until the time is over."""
        while time.monotonic() < until:
            await asyncio.sleep(self._chance.uniform(0.2, 3))  # moments, not waiting for something
            part = self._chance.choice(KILLS)
            self.kills[part] += 1
            if part in HARMLESS:
                await self._platform.kill(part)
                continue
            window = Window(part, time.monotonic())
            self.windows.append(window)
            if part == "replica":
                victim = self._chance.choice(await self._ready(self._chance.choice(list(self._services.values()))))
                gone = {victim.pid}
                os.kill(victim.pid, signal.SIGKILL)
            else:
                gone = await self._pids() if part == "agent" else set()
                await self._platform.kill(part)
            await self.healed(gone)
            window.ends = time.monotonic() + 1

    async def healed(self, gone: set[int]) -> None:
        """Returns when every service has its two replicas, none of them in `gone`, and they are routed."""

        async def whole() -> bool:
            for name in self._services.values():
                pids = {r.pid for r in await self._ready(name)}
                if len(pids) != 2 or pids & gone or await self._status(name) != "Running":
                    return False
            return True

        await eventually(whole, 120)

    async def _status(self, name: str) -> str:
        try:
            return str((await self._easel.services.get(name)).status)
        except Unavailable as error:
            return error.code

    async def _pids(self) -> set[int]:
        return {r.pid for name in self._services.values() for r in await self._ready(name)}

    async def _ready(self, name: str) -> list[Any]:
        while True:
            try:
                return [r for r in await self._easel.replicas.list(name) if r.ready]
            except Unavailable:
                await asyncio.sleep(0.2)

    def cause_of(self, at: float) -> str:
        """Why a request that ended at `at` could fail; `none` when it should not have."""
        return next((w.cause for w in reversed(self.windows) if w.begins <= at <= w.ends), "none")


@pytest.mark.soak
@pytest.mark.timeout(LENGTH_S + 600)
async def test_random_kills_under_load(platform: Platform, easel: Client) -> None:
    """Requests fail only for a killed Envoy, replica or agent; afterwards everything told has arrived once."""
    print(f"seed {SEED}")
    services: dict[Method, str] = {"GET": "soak_get", "POST": "soak_post"}
    deployed = {method: await deploy(easel, spec(name, instance=2)) for method, name in services.items()}
    soak = Soak(platform, easel, services, random.Random(SEED))
    get, post = deployed["GET"], deployed["POST"]
    async with (
        steady_load(get.endpoint, get.token, clients=CLIENTS, query="s=0.02") as gets,
        steady_load(post.endpoint, post.token, method="POST", clients=CLIENTS, query="s=0.02") as posts,
        churning(easel, ["soak_churn"]) as churns,
    ):
        await soak.go_on(time.monotonic() + LENGTH_S)
        await soak.healed(set())
    found = await assert_consistent(platform.home, 120)

    loads: dict[Method, Load] = {"GET": gets, "POST": posts}
    failures = Counter(
        (method, soak.cause_of(at), what[:60]) for method, load in loads.items() for at, what in load.failures
    )
    twice = [mark for mark, count in posts.executions.items() if count > 1]
    result = {
        "seed": SEED, "length_s": LENGTH_S, "kills": dict(soak.kills), "facts": found.facts,
        "entities": found.entities, "changes": sum(churn.changes for churn in churns),
        "answered": {method: load.answered for method, load in loads.items()},
        "failures": [[*kind, count] for kind, count in sorted(failures.items())], "posts_run_twice": len(twice),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if file := os.environ.get("EASEL_SOAK_RESULT"):
        Path(file).write_text(json.dumps(result))

    assert [kind for kind in failures if kind[1] == "none"] == []
    assert [kind for kind in failures if kind[:2] == ("GET", "replica")] == []
    assert twice == []
    in_flight = sum(count for kind, count in failures.items() if kind[:2] == ("POST", "replica"))
    assert in_flight <= CLIENTS * soak.kills["replica"]
    for churn in churns:
        await churn.end()
    for name in services.values():
        await remove(easel, name)
