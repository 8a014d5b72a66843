"""A thousand rolling updates under load: several two-replica services at once, callers that do not retry.

EASEL_SOAK_UPDATES sets how many, EASEL_SOAK_UPDATES_RESULT a file for what was counted (tools/soak.py puts it into
docs/soak.md).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from easel_sdk import Client
from tests.e2e.load import steady_load
from tests.e2e.platform import Executions, deploy, remove, spec

UPDATES = int(os.environ.get("EASEL_SOAK_UPDATES", "1000"))
NAMES = ("rolling_a", "rolling_b", "rolling_c", "rolling_d")
CLIENTS = 2
"""Per service."""


async def update_until_none_is_left(client: Client, name: str, left: list[int]) -> None:
    """Restarts and new revisions in turn; each must have taken over alone before the next."""
    document: dict[str, Any] = json.loads((await client.services.get(name)).service_config)
    container = document["containers"][0]
    while left:
        number = left.pop()
        if number % 2:
            changed = await client.services.restart(name)
        else:
            env = [e | ({"value": f"v{number}"} if e["name"] == "VALUE" else {}) for e in container["env"]]
            changed = await client.services.update(name, {"containers": [container | {"env": env}]})
        found = await client.wait(changed, timeout_s=120)
        assert found is not None
        assert found.status == "Running"


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_thousand_rolling_updates(easel: Client, tmp_path: Path) -> None:
    """No request fails, and none is executed twice."""
    executions = {name: Executions(_made(tmp_path / name)) for name in NAMES}
    loads, left, began = [], list(range(UPDATES)), time.monotonic()
    try:
        async with AsyncExitStack() as stack:
            for name in NAMES:
                document = executions[name].of(spec(name, instance=2, env={"VALUE": "v0"}))
                service = await deploy(easel, document)
                load = steady_load(service.endpoint, service.token, method="POST", clients=CLIENTS)
                loads.append(await stack.enter_async_context(load))
            await asyncio.gather(*(update_until_none_is_left(easel, name, left) for name in NAMES))
    finally:
        for name in NAMES:
            await remove(easel, name)
    failures = [what for load in loads for what in load.failed()]
    twice = [mark for found in executions.values() for mark, count in found.counts().items() if count > 1]
    answered = sum(load.answered for load in loads)
    if path := os.environ.get("EASEL_SOAK_UPDATES_RESULT"):
        counted = {"updates": UPDATES - len(left), "services": len(NAMES), "answered": answered,
                   "failed": len(failures), "twice": len(twice),
                   "minutes": round((time.monotonic() - began) / 60, 1)}  # fmt: skip
        Path(path).write_text(json.dumps(counted))

    assert failures == []
    assert twice == []
    assert answered > UPDATES


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
