"""A program for a test: the agent's parts without any isolation; starts a replica and waits to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from easel_agent.watched import LimitsWatched
from tests.contract.agent.rig import process_runtime
from tests.contract.agent.test_plain import PLAIN


async def main() -> None:
    """Print `ready` when the replica is."""
    async with process_runtime(Path(sys.argv[1]), found=PLAIN, limits=LimitsWatched()) as runtime:
        run = await runtime.run(script="setsid setsid sleep 322 & python -m http.server $PORT")
        await runtime.ready(run)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main())
