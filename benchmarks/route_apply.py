"""How long a route takes: the router's decision → acknowledged and probed on Envoy, and fact in → fact out.

A real router process, NATS, PostgreSQL and Envoy; `--services` have a route, then replicas come and go one at a time
(and, with --burst, all at once). Gate: p99 of decision → probed ≤ 100 ms with 100 services.

    python benchmarks/route_apply.py [--services 100] [--changes 300]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measuring import verdict

from easel_contracts import facts
from easel_contracts.facts import RouteState
from easel_kit.testing import eventually, real_nats, real_postgres, short_directory
from tests.flow.router.platform import Platform, platform

GATE_MS = 100.0


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]


def line(name: str, values: list[float]) -> str:
    return (
        f"{name}: n {len(values)}, p50 {quantile(values, 0.5):.1f} ms, p90 {quantile(values, 0.9):.1f} ms,"
        f" p99 {quantile(values, 0.99):.1f} ms, max {max(values):.1f} ms"
    )


def newest(easel: Platform, service: str) -> RouteState | None:
    found = easel.routes(service)
    return found[-1] if found else None


async def measure(easel: Platform, services: list[str], changes: int) -> tuple[list[float], list[float]]:
    """One change at a time: a second replica of a random service comes or goes."""
    decided, seen = [], []
    second: set[str] = set()
    for _ in range(changes):
        name = random.choice(services)
        port = 20_000 + services.index(name)
        started = time.perf_counter()
        known = len(easel.told)
        await easel.replica(name, port, "stopped" if name in second else "ready")
        second ^= {name}
        while not (found := [f for f in easel.told[known:] if f.entity == "route" and f.key == name]):  # noqa: ASYNC110
            await asyncio.sleep(0.0005)
        seen.append((time.perf_counter() - started) * 1000)
        decided.append(facts.state_of(found[-1], RouteState).apply_ms)
    return decided, seen


async def burst(easel: Platform, services: list[str]) -> list[float]:
    """All services change at once."""
    before = {name: len(easel.routes(name)) for name in services}
    started = time.perf_counter()
    await asyncio.gather(*(easel.replica(name, 25_000 + n) for n, name in enumerate(services)))
    took: dict[str, float] = {}
    while len(took) < len(services):
        for name in services:
            if name not in took and len(easel.routes(name)) > before[name]:
                took[name] = (time.perf_counter() - started) * 1000
        await asyncio.sleep(0.005)
    return list(took.values())


async def main(args: argparse.Namespace) -> int:
    with short_directory() as stores, short_directory() as path, real_nats(stores) as nats_url:
        postgres = stores / "pg"
        postgres.mkdir()
        with real_postgres(postgres) as dsn:
            async with platform(path, nats_url, dsn) as easel:
                services = [f"svc{n}" for n in range(args.services)]
                for n, name in enumerate(services):
                    await easel.service(name)
                    await easel.replica(name, 30_000 + n)
                await eventually(lambda: all((r := newest(easel, s)) and r.replicas for s in services), 60)
                decided, seen = await measure(easel, services, args.changes)
                together = await burst(easel, services)
    print(f"{args.services} services, one Envoy, one change at a time")
    print(line("decision -> acknowledged and probed", decided))
    print(line("replica fact published -> route.applied received", seen))
    print(line(f"all {args.services} services change at once: fact -> route.applied", together))
    what = f"router decision → acknowledged and probed, {args.services} services (p99)"
    return 0 if verdict(what, quantile(decided, 0.99), GATE_MS, "ms") else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--changes", type=int, default=300)
    raise SystemExit(asyncio.run(main(parser.parse_args())))
