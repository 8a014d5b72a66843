"""Containers by Easel beside containers by the bare engine: one that starts, and fifty.

One: from the container's creation, as the engine dates it, until the first 200, on Easel's side through the gateway,
on the other by the container's address. Both in turn, the same image, server and limits, a new service and a new
container each time.
Fifty: from the call that asks for them until all are ready (Easel) or have answered (the engine, asked for eight at a
time). Ready means that the gateway may send requests.

    python benchmarks/containers.py [--rounds 15] [--replicas 50] [--crowds 2]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from create_to_first_200 import SERVER, remove
from measuring import Poller, own_platform, quantile, verdict

from easel_kit.testing import eventually
from easel_sdk import Client

ROOT = Path(__file__).resolve().parent.parent
SOCKET = "/var/run/docker.sock"
IMAGE, PORT, MEMORY_MIB = "python:3.11-slim-bookworm", 8000, 64
ADDED_GATE_MS, CROWD_GATE = 200.0, 1.3
STARTS_AT_A_TIME = 8
CROWD_WITHIN_S = 240.0
LABEL = {"easel.test": "benchmark"}


class Engine:
    """Plain calls of the engine's API."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, method: str, path: str, data: Any = None, **params: str) -> Any:
        """The answer of one call; what went wrong ends the benchmark."""
        async with self._session.request(method, f"http://engine/{path}", json=data, params=params) as answer:
            if answer.status >= 400:
                raise SystemExit(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json() if answer.content_type == "application/json" else None


class Bare:
    """The engine, used as plainly as it can be: one network, one container after the other."""

    def __init__(self, engine: Engine, network: str, code: Path) -> None:
        self._engine, self._network, self._code = engine, network, code

    async def started(self, cpu: float) -> tuple[str, str]:
        """A container's id and address, as soon as the engine says that it runs."""
        limits = {"Memory": MEMORY_MIB << 20, "MemorySwap": MEMORY_MIB << 20, "NanoCpus": round(cpu * 1e9)}
        body = {
            "Image": IMAGE, "Entrypoint": ["python", "server.py"], "WorkingDir": "/code", "Env": [f"PORT={PORT}"],
            "Labels": LABEL,
            "HostConfig": {"NetworkMode": self._network, "Binds": [f"{self._code}:/code:ro"], **limits},
        }  # fmt: skip
        container = (await self._engine.ask("POST", "containers/create", data=body))["Id"]
        await self._engine.ask("POST", f"containers/{container}/start")
        found = await self._engine.ask("GET", f"containers/{container}/json")
        return container, found["NetworkSettings"]["Networks"][self._network]["IPAddress"]

    async def one_s(self) -> float:
        """Seconds from its creation until the first 200."""
        container, address = await self.started(1.0)
        poller = Poller(f"http://{address}:{PORT}", "/")
        await poller.until("", lambda status: status == 200)
        live = time.time()
        poller.close()
        age_s = live - await created_at(self._engine, container)
        await self.remove(container)
        return age_s

    async def crowd_s(self, count: int, cpu: float) -> float:
        """Seconds until so many have answered."""
        slots, made = asyncio.Semaphore(STARTS_AT_A_TIME), []

        async def one() -> None:
            async with slots:
                container, address = await self.started(cpu)
            made.append(container)
            poller = Poller(f"http://{address}:{PORT}", "/")
            await poller.until("", lambda status: status == 200, CROWD_WITHIN_S)
            poller.close()

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        took_s = time.perf_counter() - began
        await asyncio.gather(*(self.remove(container) for container in made))
        return took_s

    async def remove(self, container: str) -> None:
        """Gone with everything of it."""
        await self._engine.ask("DELETE", f"containers/{container}", force="1", v="1")


@asynccontextmanager
async def bare_engine(code: Path) -> AsyncIterator[tuple[Engine, Bare]]:
    """With a bridge network for the time of the block."""
    name, connector = f"easel-bench-{os.getpid()}", aiohttp.UnixConnector(SOCKET, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        engine = Engine(session)
        await engine.ask("POST", "networks/create", {"Name": name, "Driver": "bridge", "Labels": LABEL})
        try:
            yield engine, Bare(engine, name, code)
        finally:
            await engine.ask("DELETE", f"networks/{name}")


def document(name: str, code: Path, instance: int, cpu: float) -> dict[str, Any]:
    """The service.json of the same container."""
    return {
        "metadata": {"name": name, "instance": instance, "cpu": cpu, "memory": MEMORY_MIB},
        "containers": [{"image": IMAGE, "pull_policy": "Never", "port": PORT, "command": "python server.py"}],
        "storage": [{"mount_path": "/code", "local": {"path": str(code)}}],
    }


async def created_at(engine: Engine, container: str) -> float:
    """When the engine began to make it, in seconds of the epoch."""
    text = str((await engine.ask("GET", f"containers/{container}/json"))["Created"])
    return datetime.fromisoformat(text[:26] + "+00:00").timestamp()  # its nanoseconds are too many


async def one_by_easel_s(client: Client, engine: Engine, name: str, code: Path) -> tuple[float, float]:
    """Seconds until the first 200 at the gateway: since the container was created, and since the API was called."""
    began, poller = time.time(), Poller(client.target.data_url, f"/api/predict/{name}")
    created = await client.services.create(document(name, code, 1, 1.0))
    await poller.until(created.token, lambda status: status == 200)
    live = time.time()
    poller.close()
    replica = (await client.replicas.list(name))[0]
    filters = json.dumps({"label": [f"easel.replica={replica.name}", "easel.container=0"]})
    (listed,) = await engine.ask("GET", "containers/json", filters=filters)
    age_s = live - await created_at(engine, listed["Id"])
    await remove(client, name)
    return age_s, live - began


async def crowd_by_easel_s(client: Client, name: str, code: Path, count: int, cpu: float) -> float:
    """Seconds from the call of the API until so many replicas are ready."""
    began = time.perf_counter()
    await client.services.create(document(name, code, count, cpu))

    async def all_ready() -> bool:
        return sum(replica.ready for replica in await client.replicas.list(name)) == count

    await eventually(all_ready, CROWD_WITHIN_S)
    took_s = time.perf_counter() - began
    await remove(client, name)
    return took_s


async def measure_one(home: Path, code: Path, rounds: int) -> bool:
    """The first gate."""
    bare, easel, whole = [], [], []
    async with Client(home=home) as client, bare_engine(code) as (engine, plain):
        for number in range(rounds + 1):
            alone_s = await plain.one_s()
            with_easel_s, since_call_s = await one_by_easel_s(client, engine, f"bench_{number}", code)
            if number:  # the first fills caches on both sides
                bare.append(1000 * alone_s)
                easel.append(1000 * with_easel_s)
                whole.append(1000 * since_call_s)
    for what, values in (("bare engine: create, start, server's own start", bare),
                         ("Easel: container created → first 200 at the gateway", easel),
                         ("Easel: API called → first 200 at the gateway", whole)):  # fmt: skip
        print(f"  {what:<52} median {statistics.median(values):7.1f} ms   p90 {quantile(values, 0.9):7.1f}"
              f"   max {max(values):7.1f}")  # fmt: skip
    added = statistics.median(easel) - statistics.median(bare)
    return verdict("container created → first answer, over the bare engine's (medians)", added, ADDED_GATE_MS, "ms")


async def measure_crowd(home: Path, code: Path, count: int, crowds: int) -> bool:
    """The second gate."""
    cpu = round(0.8 * (os.cpu_count() or 1) / count, 3)  # all of them have to find room on this node
    bare, easel = [], []
    async with Client(home=home) as client, bare_engine(code) as (_, plain):
        for number in range(crowds):
            bare.append(await plain.crowd_s(count, cpu))
            easel.append(await crowd_by_easel_s(client, f"crowd_{number}", code, count, cpu))
            print(f"  {count} at once: bare engine {bare[-1]:.1f} s, Easel {easel[-1]:.1f} s", flush=True)
    ratio = statistics.median(easel) / statistics.median(bare)
    return verdict(f"{count} replicas up, beside the bare engine", ratio, CROWD_GATE, "x")


def main() -> int:
    """Exit code 0 where both gates hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--replicas", type=int, default=50)
    parser.add_argument("--crowds", type=int, default=2)
    arguments = parser.parse_args()
    subprocess.run([sys.executable, ROOT / "deploy" / "engine.py"], check=True)
    with own_platform() as home:
        code = home.parent / "code"
        code.mkdir()
        (code / "server.py").write_text(SERVER.replace("127.0.0.1", "0.0.0.0"))
        met = [asyncio.run(measure_one(home, code, arguments.rounds)),
               asyncio.run(measure_crowd(home, code, arguments.replicas, arguments.crowds))]  # fmt: skip
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
