"""Rolling updates under load on a whole platform: failed requests, requests executed twice, updates per minute.

Several two-replica services at once; each update is a restart or a new revision (an environment value) and must have
taken over alone before the service's next. The callers do not retry, and each request is a POST, which may not run
twice; the model servers write down every execution. `make soak` does the same a thousand times.

    python benchmarks/rolling_updates.py [--updates 60] [--services 4]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measuring import own_platform, verdict

from easel_sdk import Client
from tests.e2e.updates import Updated, roll

SHOWN = 20


async def measure(home: Path, updates: int, services: int) -> Updated:
    async with Client(home=home) as client:
        return await roll(client, home.parent, updates, services)


def report(found: Updated) -> bool:
    print(f"{found.updates} updates of {found.services} services in {found.took_s:.0f} s, "
          f"{60 * found.updates / found.took_s:.1f} a minute; {found.answered} requests answered")  # fmt: skip
    for what in [*found.failures[:SHOWN], *found.twice[:SHOWN]]:
        print(f"  {what}")
    met = [
        verdict(f"failed requests, {found.updates} rolling updates under load", len(found.failures), 0, "requests"),
        verdict(f"executed twice, {found.updates} rolling updates under load", len(found.twice), 0, "requests"),
    ]
    return all(met)


def main() -> int:
    """Exit code 0 where the gates hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=60, help="of all services together")
    parser.add_argument("--services", type=int, default=4)
    arguments = parser.parse_args()
    with own_platform() as home:
        found = asyncio.run(measure(home, arguments.updates, arguments.services))
    return 0 if report(found) else 1


if __name__ == "__main__":
    sys.exit(main())
