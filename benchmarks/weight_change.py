"""How long a change of a split's weight takes: the router's decision → acknowledged and probed on every Envoy.

A real router process, NATS, PostgreSQL and Envoy with `--services` services, of which `--split` are split between two
revisions. Weights change one at a time; in between nothing rests, so that changes of others are under way as in real
life: `--busy` replicas a second come and go at other services. First with one Envoy, then with two.

    python benchmarks/weight_change.py [--services 1000] [--split 50] [--changes 500] [--busy 5]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import time
from itertools import count

from fleet import Fleet, fleet
from measuring import quantile, verdict

from easel_contracts.facts import RouteState
from easel_contracts.spec import Split
from easel_kit.testing import real_nats, real_postgres, short_directory

GATE_MS = 100.0
"""p99, with 1,000 services."""


def line(name: str, values: list[float]) -> str:
    quantiles = ", ".join(f"p{q * 100:g} {quantile(values, q):.1f}" for q in (0.5, 0.9, 0.99))
    return f"  {name}: n {len(values)}, {quantiles}, max {max(values):.1f} ms"


async def begin(made: Fleet, names: list[str]) -> None:
    """A candidate with one replica beside what each of them has, without weight yet."""
    for number, name in enumerate(names):
        await made.easel.service(name, "rollout_changed", revision=2, split=Split(weight_permille=0))
        made.replicas[name].add(await made.easel.replica(name, made.port(number + 2), revision=2))
    await made.routes.have({name: made.replicas[name] for name in names})


async def change(made: Fleet, name: str, permille: int) -> tuple[float, RouteState]:
    """One change; ms from its fact to the router's, and that."""
    began_s = time.perf_counter()
    await made.easel.service(name, "rollout_changed", revision=2, split=Split(weight_permille=permille))
    state = await made.routes.until(name, lambda route: route.split_permille == permille)
    return (made.routes.at_s[name] - began_s) * 1000, state


async def all_there(made: Fleet, name: str, envoys: int) -> None:
    """Waits until so many Envoys take part: a new one is waited for once it has everything else."""
    async with asyncio.timeout(60):
        for permille in count(1):
            _, state = await change(made, name, permille)
            if state.envoys == envoys:
                return
            await asyncio.sleep(0.2)


async def busy(made: Fleet, others: list[str], per_s: float) -> None:
    """Replicas of other services come and go, for ever."""
    second: set[str] = set()
    while True:
        name = random.choice(others)
        act = made.take if name in second else made.add
        second ^= {name}
        await act(name, int(name.removeprefix("svc")) + 2)
        await asyncio.sleep(1 / per_s)


async def measure(made: Fleet, names: list[str], changes: int, envoys: int) -> bool:
    """One number of Envoys; whether its gate is met."""
    decided: list[float] = []
    seen: list[float] = []
    weights = dict.fromkeys(names, 0)
    for n in range(changes):
        name = names[n % len(names)]
        weights[name] = (weights[name] + random.randrange(1, 1000)) % 1001  # another than before
        seen_ms, state = await change(made, name, weights[name])
        if state.envoys != envoys:
            raise SystemExit(f"{state.envoys} Envoys took the change, not {envoys}")
        decided.append(state.apply_ms)
        seen.append(seen_ms)
    print(f"{changes} changes of weight, {envoys} Envoy{'s' * (envoys > 1)}")
    print(line("decision → acknowledged and probed on every Envoy", decided))
    print(line("fact published → route.applied received", seen), flush=True)
    services = len(made.replicas)
    what = f"weight change decided → acknowledged and probed, {services} services, {envoys} Envoy(s) (p99)"
    return verdict(what, quantile(decided, 0.99), GATE_MS, "ms")


async def run(made: Fleet, args: argparse.Namespace) -> bool:
    """With one Envoy, then with two."""
    await made.make(args.services)
    all_names = list(made.replicas)
    names, others = all_names[: args.split], all_names[args.split :]
    await begin(made, names)
    met = []
    for envoys in (1, 2):
        if envoys == 2:
            await made.easel.start_envoy("envoy-1")
        noise = asyncio.create_task(busy(made, others, args.busy)) if args.busy and others else None
        try:
            await all_there(made, names[0], envoys)
            met.append(await measure(made, names, args.changes, envoys))
        finally:
            if noise is not None:
                noise.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await noise
    return all(met)


async def main(args: argparse.Namespace) -> int:
    with short_directory() as stores, real_nats(stores) as nats_url:
        postgres = stores / "pg"
        postgres.mkdir()
        with real_postgres(postgres) as dsn, short_directory() as path:
            async with fleet(path, nats_url, dsn) as made:
                return 0 if await run(made, args) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--split", type=int, default=50, help="of them, between two revisions")
    parser.add_argument("--changes", type=int, default=500, help="per number of Envoys, one at a time")
    parser.add_argument("--busy", type=float, default=5.0, help="replicas a second that come or go elsewhere; 0: none")
    raise SystemExit(asyncio.run(main(parser.parse_args())))
