"""How long a route takes: the router's decision → acknowledged and probed on Envoy, and fact in → fact out.

A real router process, NATS, PostgreSQL and Envoy, in turn with each of `--sizes` services of one or two replicas.
Replicas come and go one at a time, for at least as long as the router needs for a look at everything by itself
(`--seconds`), then (up to 1,000 services) at all services at once. Envoy is killed and restarted at once: how long
until the next 200. Memory is the highest that each process ever had.

    python benchmarks/route_apply.py [--sizes 100,1000,10000] [--changes 300] [--seconds 35] [--kills 5]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time

from fleet import Fleet, fleet
from measuring import Poller, quantile, verdict

from easel_kit.testing import real_nats, real_postgres, short_directory

APPLY_GATES_MS = {100: (0.99, 100.0), 1_000: (0.99, 100.0), 10_000: (0.5, 50.0)}
"""Services → (quantile, longest time from decision to acknowledged and probed)."""
MEMORY_GATES_MIB = {10_000: {"router": 1024.0, "Envoy": 2048.0}}
KILL_GATES_S = {1_000: 1.0}
BURST_UP_TO = 1_000


def line(name: str, values: list[float]) -> str:
    quantiles = ", ".join(f"p{q * 100:g} {quantile(values, q):.1f}" for q in (0.5, 0.9, 0.99))
    return f"  {name}: n {len(values)}, {quantiles}, max {max(values):.1f} ms"


async def change(made: Fleet, number: int, second: set[str]) -> tuple[float, float]:
    """One more or one less replica of a service; ms that the router needed from its decision, and from its fact on."""
    name = f"svc{number}"
    act = made.take if name in second else made.add
    second ^= {name}
    published_s = await act(name, number + 2)
    await made.routes.have({name: made.replicas[name]})
    return made.routes.newest[name].apply_ms, (made.routes.at_s[name] - published_s) * 1000


async def changes(made: Fleet, size: int, least: int, seconds: float) -> tuple[list[float], list[float]]:
    """Changes of random services, one at a time."""
    decided: list[float] = []
    seen: list[float] = []
    second: set[str] = set()
    end = time.perf_counter() + seconds
    while len(decided) < least or time.perf_counter() < end:
        decided_ms, seen_ms = await change(made, random.randrange(size), second)
        decided.append(decided_ms)
        seen.append(seen_ms)
    return decided, seen


async def burst(made: Fleet, size: int) -> list[float]:
    """All services change at once; ms from the first fact until each is told."""
    began = time.perf_counter()
    await asyncio.gather(*(made.add(f"svc{n}", n + 3) for n in range(size)))
    await made.routes.have(made.replicas)
    return [(at_s - began) * 1000 for at_s in made.routes.at_s.values()]


async def killed_s(made: Fleet, size: int) -> float:
    """Seconds from Envoy's kill -9, restarted at once, to the first 200 of a random service."""
    config = made.easel.envoy_config(made.envoy)
    poller = Poller(made.envoy.url, f"/api/predict/svc{random.randrange(size)}")
    await poller.until("tok", lambda status: status == 200)
    killed_at = time.perf_counter()
    await made.envoy.stop()
    await made.envoy.start(config)
    back_at = await poller.until("tok", lambda status: status == 200)
    poller.close()
    return back_at - killed_at


async def measure(made: Fleet, size: int, args: argparse.Namespace) -> bool:
    """One size; whether its gates are met."""
    loaded_s = await made.make(size)
    print(f"{size} services with {sum(map(len, made.replicas.values()))} replicas, one Envoy", flush=True)
    print(f"  all made at once: {loaded_s:.1f} s until the last route is told")
    decided, seen = await changes(made, size, args.changes, args.seconds)
    print(line("decision → acknowledged and probed", decided))
    print(line("replica fact published → route.applied received", seen), flush=True)
    if size <= BURST_UP_TO:
        print(line(f"all {size} services change at once: first fact → route.applied", await burst(made, size)))
    memory = made.rss_mib()
    print("  memory: " + ", ".join(f"{who} {now:.0f} MiB, highest {top:.0f}" for who, (now, top) in memory.items()))
    back_s = [await killed_s(made, size) for _ in range(args.kills)]
    print(f"  Envoy's kill -9 → first 200: {', '.join(f'{s:.2f}' for s in back_s)} s", flush=True)
    return judge(size, decided, memory, back_s)


def judge(size: int, decided: list[float], memory: dict[str, tuple[float, float]], back_s: list[float]) -> bool:
    met = []
    if size in APPLY_GATES_MS:
        q, gate_ms = APPLY_GATES_MS[size]
        what = f"router decision → acknowledged and probed, {size} services (p{q * 100:g})"
        met.append(verdict(what, quantile(decided, q), gate_ms, "ms"))
    for who, gate_mib in MEMORY_GATES_MIB.get(size, {}).items():
        met.append(verdict(f"{who}'s memory with {size} services (highest RSS)", memory[who][1], gate_mib, "MiB"))
    if size in KILL_GATES_S:
        what = f"Envoy's kill -9 → first 200, {size} services (worst of {len(back_s)})"
        met.append(verdict(what, max(back_s), KILL_GATES_S[size], "s"))
    sys.stdout.flush()
    return all(met)


async def main(args: argparse.Namespace) -> int:
    met = []
    with short_directory() as stores, real_nats(stores) as nats_url:
        postgres = stores / "pg"
        postgres.mkdir()
        with real_postgres(postgres) as dsn:
            for size in args.sizes:
                with short_directory() as path:
                    async with fleet(path, nats_url, dsn) as made:
                        met.append(await measure(made, size, args))
    return 0 if all(met) else 1


def sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=sizes, default=sizes("100,1000,10000"))
    parser.add_argument("--changes", type=int, default=300, help="at least so many, one at a time")
    parser.add_argument("--seconds", type=float, default=35.0, help="for at least so long")
    parser.add_argument("--kills", type=int, default=5)
    raise SystemExit(asyncio.run(main(parser.parse_args())))
