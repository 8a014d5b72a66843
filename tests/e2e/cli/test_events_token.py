"""`easel events token` on a platform: it reads the facts and writes nothing; the audit says who got it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest

from tests.e2e.platform import Platform


async def test_the_token_reads_facts_and_writes_nothing(platform: Platform, tmp_path: Path) -> None:
    """With nothing but what the command printed an outsider hears the next fact; publishing one is refused."""
    token = json.loads(await asyncio.to_thread(platform.easel, "events", "token", "-o", "json"))
    seed = tmp_path / "seed"
    seed.write_text(token["nkey_seed"])
    refused = asyncio.Event()

    async def on_error(error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            refused.set()

    client = await nats.connect(
        token["nats_url"], nkeys_seed=str(seed), inbox_prefix=token["inbox_prefix"].encode(), error_cb=on_error
    )
    try:
        heard = await client.subscribe(token["subject"])
        await client.flush()
        await asyncio.to_thread(_change, platform, tmp_path)
        message = await heard.next_msg(timeout=20)
        await client.publish("easel.fact.default.service.forged.created", b"x")
        await client.flush()
        await asyncio.wait_for(refused.wait(), 20)
    finally:
        await client.close()
        await asyncio.to_thread(platform.easel, "delete", "heard", "-y", "--wait")
    audit = json.loads(await asyncio.to_thread(platform.easel, "audit", "--target", "events/token", "-o", "json"))

    assert message.subject.startswith("easel.fact.default.")
    assert audit[0]["action"] == "Events.CreateToken"
    assert audit[0]["owner"] == "monitor"
    assert token["nkey_seed"] not in json.dumps(audit)


async def test_every_api_explains_itself_and_tells_its_health(platform: Platform) -> None:
    """Over REST at the control address, and gRPC's own health of each API."""
    import aiohttp
    import grpc.aio
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    key = (platform.home / "keys" / "access-key").read_text().strip()
    base = f"http://127.0.0.1:{platform.control_port}/v1"
    found: dict[str, Any] = {}
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        async with session.get(f"{base}/nodes") as answer:
            node = (await answer.json())["nodes"][0]["node"]
        for path in ("events:explain", "audit:explain", f"nodes/{node}:explain"):
            async with session.get(f"{base}/{path}") as answer:
                assert answer.status == 200, await answer.text()
                found[path] = (await answer.json())["lines"]
    apis = ("Services", "Tokens", "Mirrors", "Audit", "Replicas", "Nodes", "Scaling", "Routes", "Metrics", "Events")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{platform.control_port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        health = {
            api: (await stub.Check(health_pb2.HealthCheckRequest(service=f"easel.v1.{api}"))).status for api in apis
        }
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Check(health_pb2.HealthCheckRequest(service="easel.v1.Nothing"))

    records = [line["message"].split()[0] for line in found["audit:explain"] if line["code"] == "Records"]
    assert "Facts" in [line["code"] for line in found["events:explain"]]
    assert set(records) == {"control", "monitor", "scheduler"}, "each owner that keeps a trail says how much"
    assert found[f"nodes/{node}:explain"][0]["code"] == "NodeReady"
    assert set(health.values()) == {health_pb2.HealthCheckResponse.SERVING}


def _change(platform: Platform, directory: Path) -> None:
    """Something that tells a fact."""
    file = directory / "service.json"
    file.write_text(
        json.dumps(
            {"name": "heard", "metadata": {"instance": 1, "cpu": 0.1, "memory": 64},
             "containers": [{"command": "sleep 600", "port": 8000}]}
        )
    )  # fmt: skip
    platform.easel("create", str(file))
