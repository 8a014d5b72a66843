"""Tokens and mirrors by the SDK, async and sync."""

from __future__ import annotations

import pytest

from easel_proto.v1.tokens_pb2 import AccessToken
from easel_sdk import Client, SyncClient
from easel_sdk.errors import NotFound
from easel_sdk.types import CompareOptions
from tests.flow.sdk.platform import KEY, Platform


async def test_tokens(platform: Platform) -> None:
    """Each mutation with an idempotency key of its own; a group's where that is said."""
    platform.tokens["ocr"] = [AccessToken(name="default", value="the-value")]
    async with Client(platform.server, KEY) as easel:
        assert [t.value for t in await easel.tokens.list("ocr")] == ["the-value"]
        made = await easel.tokens.create("vision", "mobile", expires_in_s=60, rate_limit=5, group=True)
        await easel.tokens.rotate("ocr")
        await easel.tokens.delete("ocr", "mobile", idempotency_key="k")

    assert (made.name, made.value, made.rate_limit) == ("mobile", "a-made-value", 5)
    create, rotate = platform.asked("Tokens.Create")[0], platform.asked("Tokens.Rotate")[0]
    assert (create.group, create.service, create.workspace) == ("vision", "", "default")
    assert (rotate.name, rotate.overlap_s) == ("default", 3600)
    assert create.idempotency_key != rotate.idempotency_key != ""
    assert platform.asked("Tokens.Delete")[0].idempotency_key == "k"


def test_mirrors_sync(platform: Platform) -> None:
    with SyncClient(platform.server, KEY) as easel:
        found = easel.mirrors.set("ocr", ["echo"], 10, compare=CompareOptions(no_side_effects=True))
        assert easel.mirrors.get("ocr") == found
        assert easel.mirrors.delete("ocr") == found
        with pytest.raises(NotFound, match="not mirrored"):
            easel.mirrors.get("ocr")

    assert found.compare.no_side_effects
    assert platform.asked("Mirrors.Set")[0].idempotency_key
