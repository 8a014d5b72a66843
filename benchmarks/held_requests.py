"""Held requests: how soon each is at its replica once that is acknowledged, and how long a first request at zero takes.

Part one, a router alone with a real Envoy, NATS and PostgreSQL: so many requests wait, then a replica is told ready.
Acknowledged is when Envoy's last acknowledgement of the new cluster and endpoints leaves Envoy (a relay before the
router notes it); at the replica is when the model server has read the request's head. Both clocks are the machine's
monotonic one.

Part two, a whole platform: a service at zero gets a request; from then to its answer, less the model server's own start
(exec → its port accepts, as in create_to_first_200.py, measured in turn).

    python benchmarks/held_requests.py [--rounds 60] [--wakes 20]
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import held_release
import wake_from_zero


def main() -> int:
    """Exit code 0 where the gates hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="releases of one request; of 200 and 2,000 fewer")
    parser.add_argument("--wakes", type=int, default=20)
    arguments = parser.parse_args()
    met = [asyncio.run(held_release.measure(arguments.rounds)), wake_from_zero.measure(arguments.wakes)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
