"""A thousand rolling updates under load: several two-replica services at once, callers that do not retry.

EASEL_SOAK_UPDATES sets how many, EASEL_SOAK_UPDATES_RESULT a file for what was counted (tools/soak.py puts it into
docs/soak.md).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from easel_sdk import Client
from tests.e2e.updates import roll

UPDATES = int(os.environ.get("EASEL_SOAK_UPDATES", "1000"))
SERVICES = 4


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_thousand_rolling_updates(easel: Client, tmp_path: Path) -> None:
    """No request fails, and none is executed twice."""
    found = await roll(easel, tmp_path, UPDATES, SERVICES)
    if path := os.environ.get("EASEL_SOAK_UPDATES_RESULT"):
        counted = {"updates": found.updates, "services": found.services, "answered": found.answered,
                   "failed": len(found.failures), "twice": len(found.twice),
                   "minutes": round(found.took_s / 60, 1)}  # fmt: skip
        Path(path).write_text(json.dumps(counted))

    assert found.failures == []
    assert found.twice == []
    assert found.updates == UPDATES
    assert found.answered > UPDATES
