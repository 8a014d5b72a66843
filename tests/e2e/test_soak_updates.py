"""A thousand rolling updates under load: several two-replica services at once, callers that do not retry.

EASEL_SOAK_UPDATES sets how many, in containers a fifth; EASEL_SOAK_UPDATES_RESULT a directory for what was counted
(tools/soak.py puts it into docs/soak.md).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from easel_sdk import Client
from tests.e2e.updates import roll

UPDATES = int(os.environ.get("EASEL_SOAK_UPDATES", "1000"))
SERVICES = {"process": 4, "docker": 2}
"""What fits on two cores beside its successors: a container's CPU is a hard limit, so each gets more."""


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_thousand_rolling_updates(runtime: str, easel: Client, tmp_path: Path) -> None:
    """No request fails, and none is executed twice."""
    updates = UPDATES if runtime == "process" else max(UPDATES // 5, 1)
    found = await roll(easel, tmp_path, updates, SERVICES[runtime])
    if path := os.environ.get("EASEL_SOAK_UPDATES_RESULT"):
        counted = {"updates": found.updates, "services": found.services, "answered": found.answered,
                   "failed": len(found.failures), "twice": len(found.twice),
                   "minutes": round(found.took_s / 60, 1)}  # fmt: skip
        Path(path, f"{runtime}.json").write_text(json.dumps(counted))

    assert found.failures == []
    assert found.twice == []
    assert found.updates == updates
    assert found.answered > updates
