"""A gRPC service on the whole platform: asked for in its service.json, called by name, taken back."""

from __future__ import annotations

from typing import Any

import grpc.aio

from easel_kit.testing import eventually
from easel_sdk import Client
from tests.e2e.platform import Platform, deploy, remove, spec

NAME = "echoes"


async def call(platform: Platform, token: str) -> bytes:
    metadata = (("authorization", token), ("x-easel-service", NAME))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{platform.port}") as channel:
        predict: Any = channel.unary_unary("/pkg.Model/Predict", None, None)
        answer: bytes = await predict(b"hi", metadata=metadata, timeout=20)
        return answer


async def test_enable_grpc(platform: Platform, easel: Client) -> None:
    """With it calls are answered; without it (a new revision) the caller learns what is missing."""
    document = spec(NAME, command="python grpc_server.py")
    document["containers"][0]["prepare"] = {"pythonRequirements": ["grpcio"]}
    document["metadata"]["enable_grpc"] = True
    try:
        service = await deploy(easel, document)
        assert await call(platform, service.token) == b"echo:hi"

        document["metadata"]["enable_grpc"] = False
        changed = await easel.services.update(NAME, document)
        await easel.wait(NAME, generation=changed.generation, timeout_s=90)

        async def told_what_is_missing() -> bool:
            try:
                await call(platform, service.token)  # the old replica is there for a moment, and answers
            except grpc.aio.AioRpcError as error:
                return "metadata.enable_grpc" in (error.details() or "")
            return False

        await eventually(told_what_is_missing)
    finally:
        await remove(easel, NAME)
