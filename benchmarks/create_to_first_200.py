"""Create → first 200: what the platform adds to the model server's own start, and where it goes.

Own start: from exec of the same command by hand until its port accepts a connection. With the platform: from the call
of `Services.Create` (by the SDK) until the data listener answers 200, asked every few ms. Both in turn, a new service
each time, a small server of the standard library without requirements.

    python benchmarks/create_to_first_200.py [--creates 15]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from measuring import Poller, own_platform, quantile, verdict

from easel_agent.environments import base_python
from easel_kit.testing import free_port
from easel_sdk import Client
from easel_sdk.errors import NotFound

GATE_MS = 700.0
SERVER = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
FACTS = ("service.created", "replica.placed", "replica.starting", "replica.ready", "route.applied")


def by_hand_s(code: Path) -> float:
    """Own start of the model server, in seconds."""
    port = free_port()
    began = time.perf_counter()
    server = subprocess.Popen([base_python(), "server.py"], cwd=code, env={**os.environ, "PORT": str(port)})
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return time.perf_counter() - began
            time.sleep(0.001)
    finally:
        server.kill()
        server.wait()


async def create_s(client: Client, data_url: str, name: str, code: Path) -> tuple[float, float]:
    """Seconds from the call until the create is durable, and until the first 200."""
    document = {
        "metadata": {"name": name, "instance": 1, "cpu": 1, "memory": 128},
        "containers": [{"port": 8000, "command": "python server.py"}],
        "storage": [{"mount_path": "/code", "local": {"path": str(code)}}],
    }
    began = time.perf_counter()
    created = await client.services.create(document)
    durable = time.perf_counter()
    poller = Poller(data_url, f"/api/predict/{name}")
    live = await poller.until(created.token, lambda status: status == 200)
    poller.close()
    return durable - began, live - began


async def phases_ms(client: Client, name: str) -> dict[str, float]:
    """What the replica took by phase, and the times of the facts since `service.created`."""
    replica = (await client.replicas.list(name))[0]
    found = {f"phase {phase}": 1000 * replica.phase_s.get(phase, 0.0)
             for phase in ("schedule", "fetch", "mount", "start", "probe")}  # fmt: skip
    at: dict[str, float] = {}
    async for event in client.events.watch(key=name, from_sequence=1, follow=False):
        if event.type in FACTS:
            # of the routes only the one that has the replica counts, which is the last
            keep = event.type == "route.applied" or event.type not in at
            at[event.type] = event.at.ToNanoseconds() / 1e6 if keep else at[event.type]
    for before, after in pairwise(FACTS):
        if before in at and after in at:
            found[f"{before} → {after}"] = at[after] - at[before]
    return found


async def remove(client: Client, name: str) -> None:
    await client.services.delete(name)
    try:
        await client.wait(name, "deleted", timeout_s=60)
    except NotFound:
        return


async def measure(home: Path, creates: int) -> tuple[list[float], list[float], list[dict[str, float]]]:
    """Own starts and creates, both in ms, and the split of each create."""
    code = home.parent / "code"
    code.mkdir()
    (code / "server.py").write_text(SERVER)
    own, with_platform, split = [], [], []
    async with Client(home=home) as client:
        data_url = client.target.data_url
        for number in range(creates + 1):
            name, own_s = f"bench_{number}", by_hand_s(code)
            durable_s, live_s = await create_s(client, data_url, name, code)
            await asyncio.sleep(0.3)  # monitor and control hear of the route, too
            found = await phases_ms(client, name)
            await remove(client, name)
            if number:  # the first fills caches on both sides
                own.append(1000 * own_s)
                with_platform.append(1000 * live_s)
                split.append({"create call": 1000 * durable_s, **found})
    return own, with_platform, split


def report(own: list[float], creates: list[float], split: list[dict[str, Any]]) -> bool:
    added = [whole - alone for whole, alone in zip(creates, own, strict=True)]
    for name in sorted({key for row in split for key in row}):
        values = [row[name] for row in split if name in row]
        print(f"  {name:<44} median {statistics.median(values):7.1f} ms   max {max(values):7.1f}")
    print(f"own start:          median {statistics.median(own):7.1f} ms   max {max(own):7.1f}")
    print(f"create → first 200: median {statistics.median(creates):7.1f} ms   p90 {quantile(creates, 0.9):7.1f}")
    print(f"added:              median {statistics.median(added):7.1f} ms   max {max(added):7.1f}")
    return verdict("create → first 200, over own start (median)", statistics.median(added), GATE_MS, "ms")


def main() -> int:
    """Exit code 0 where the gate holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--creates", type=int, default=15)
    arguments = parser.parse_args()
    with own_platform() as home:
        found = asyncio.run(measure(home, arguments.creates))
    return 0 if report(*found) else 1


if __name__ == "__main__":
    sys.exit(main())
