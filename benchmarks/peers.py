"""Easel's gateway with every feature on, beside a bare Envoy and beside Ray Serve, BentoML and LitServe. One run.

The same model function is served by each (benchmarks/served). Behind Easel and the bare Envoy it is a plain ASGI
application in one uvicorn: as pip installs it beside the bare Envoy, with uvloop and httptools, which is what the
others are built on, beside these. Every route is measured next to the one it is compared with, in shuffled rounds;
ratios are medians over rounds. Load generator, gateway and server share the machine, so all their CPU counts; a peer
stands still while it is not measured. Peers are installed from PyPI into environments of their own (.bench/, some
hundred MB).

What each does per request: the peers parse HTTP in Python, validate, hand the request to a replica's process (Ray:
proxy → replica by gRPC; LitServe: by a queue; BentoML: in the same process), and answer. Easel's gateway checks the
token, takes from two buckets and a concurrency limit, picks a revision by weight and its least loaded replica, and
proxies; the mirror is a copy of each tenth request to another service's replica.

    python benchmarks/peers.py [--rounds 5] [--seconds 3] [--peers ray,bentoml,litserve]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import aiohttp
import psutil
from envoy_route import FAST, PLAIN, bare, load, plain_envoy
from features import TOKEN, features, lean, shadow
from measuring import verdict
from msgspec import Struct

from easel_contracts.spec import Mirroring
from easel_kit.testing import accepts, eventually
from easel_router.testing import Envoy, Rig, free_port, rig

HERE = Path(__file__).resolve().parent
SERVED = HERE / "served"
ENVIRONMENTS = HERE.parent / ".bench"
POST = """
wrk.method = "POST"
wrk.body = '{"x": [1.0, 2.0, 3.0, 4.0]}'
wrk.headers["Content-Type"] = "application/json"
"""
BARE_GATE, MIRROR_GATE, ADDED_GATE_MS = 0.80, 0.65, 0.2


class Peer(Struct, frozen=True):
    """A server from PyPI."""

    name: str
    package: str
    command: tuple[str, ...]
    """In its environment's bin; `{port}` is where it listens."""
    gate: float
    """Easel's throughput must be so many times its own."""


PEERS = {
    "ray": Peer("Ray Serve", "ray[serve]", ("python", "ray_serve.py", "{port}"), 20),
    "bentoml": Peer("BentoML", "bentoml", ("bentoml", "serve", "bento:Model", "--port", "{port}"), 8),
    "litserve": Peer("LitServe", "litserve", ("python", "lit.py", "{port}"), 4),
}


class Target(Struct, frozen=True):
    """Something to send load to."""

    name: str
    url: str
    pids: tuple[int, ...] = ()
    """Processes (with their children) whose CPU is charged; the load generator's is not."""


class Seen(Struct, kw_only=True):
    """What rounds of one target came to."""

    rps: list[float]
    p50_ms: list[float]
    cpu_us: list[float]


def installed(name: str) -> Path:
    """The environment of a peer, made when it is not there."""
    directory = ENVIRONMENTS / name
    if not (directory / ".ready").exists():
        uv = shutil.which("uv") or str(HERE.parent / ".uv/bin/uv")
        print(f"installing {PEERS[name].package} into {directory.name} …", flush=True)
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, directory], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", directory / "bin/python", PEERS[name].package],
                       check=True)  # fmt: skip
        (directory / ".ready").touch()
    return directory / "bin"


@asynccontextmanager
async def serving(command: list[str], port: int, directory: Path) -> AsyncIterator[int]:
    """A server process in a group of its own, until it answers and until the block ends; its pid."""
    environment = os.environ | {"DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0",
                                "PYTHONPATH": str(SERVED)}  # fmt: skip
    log = (directory / f"{port}.log").open("wb")
    server = await asyncio.create_subprocess_exec(
        *command, cwd=SERVED, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    family: list[psutil.Process] = []
    try:
        await eventually(partial(accepts, port), deadline_s=120)
        yield server.pid
        family = psutil.Process(server.pid).children(recursive=True)
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        os.killpg(server.pid, signal.SIGKILL)
        await server.wait()
        log.close()


def cpu_s(pids: tuple[int, ...]) -> float:
    """User and system time of these processes and their living children."""
    total = 0.0
    for pid in pids:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def standing_still(pid: int | None) -> Iterator[None]:
    """A server and its children stopped: what it does while nobody asks it is not charged to the others."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)] if pid is not None else []
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            process.resume()


async def rounds(
    targets: list[Target], args: argparse.Namespace, connections: int, script: Path, peer: int | None = None
) -> dict[str, Seen]:
    """Each target once a round, in another order each time. `peer`: stands still while it is not the target."""
    found = {target.name: Seen(rps=[], p50_ms=[], cpu_us=[]) for target in targets}
    for _ in range(args.rounds):
        for target in random.sample(targets, len(targets)):
            with standing_still(None if peer in target.pids else peer):
                before = cpu_s(target.pids)
                requests, rps, p50_ms = await load(
                    target.url, [f"Authorization: {TOKEN}"], connections, args.seconds, "-s", str(script)
                )
            seen = found[target.name]
            seen.rps.append(rps)
            seen.p50_ms.append(p50_ms)
            seen.cpu_us.append((cpu_s(target.pids) - before) * 1e6 / requests)
    return found


def ratio(found: dict[str, Seen], one: str, other: str) -> float:
    """Throughput of one beside another's, the median over rounds."""
    return statistics.median(a / b for a, b in zip(found[one].rps, found[other].rps, strict=True))


def told(found: dict[str, Seen]) -> None:
    """A line per target."""
    for name, seen in found.items():
        middle = {field: statistics.median(getattr(seen, field)) for field in ("rps", "p50_ms", "cpu_us")}
        print(f"{name:44} {middle['rps']:8.0f} requests/s   median {middle['p50_ms']:7.2f} ms   "
              f"{middle['cpu_us']:6.0f} µs CPU a request", flush=True)  # fmt: skip


async def against_bare(route: Route, args: argparse.Namespace, script: Path) -> tuple[float, float]:
    """Throughput beside a bare Envoy's before the same server: with all features, and with 10 % mirrored on top."""
    many = await rounds([route.easel, route.mirrored, route.bare], args, args.connections, script)
    told(many)
    full, mirrored = (ratio(many, one.name, route.bare.name) for one in (route.easel, route.mirrored))
    print(f"all features {full:.2f} x bare, with 10 % mirrored {mirrored:.2f} x bare")
    return full, mirrored


async def beside_bare(route: Route, args: argparse.Namespace, script: Path) -> list[bool]:
    """The gates: throughput at many connections, and the median at one."""
    full, mirrored = await against_bare(route, args, script)
    one = await rounds([route.easel, route.bare], args, 1, script)
    pairs = zip(one[route.easel.name].p50_ms, one[route.bare.name].p50_ms, strict=True)
    added_ms = statistics.median(a - b for a, b in pairs)
    return [
        verdict("all features, throughput", full, BARE_GATE, "x bare", at_least=True),
        verdict("all features and 10 % mirrored, throughput", mirrored, MIRROR_GATE, "x bare", at_least=True),
        verdict("all features, median at one connection, more than bare", added_ms, ADDED_GATE_MS, "ms"),
    ]


async def beside_peer(
    name: str, easel: Target, envoy: int, in_front: Callable[[int], Awaitable[str]], args: argparse.Namespace,
    script: Path, directory: Path,
) -> bool:  # fmt: skip
    """Easel's throughput beside a peer's own; and what the peer does behind Easel's gateway."""
    peer, port = PEERS[name], free_port()
    program, *words = (word.format(port=port) for word in peer.command)
    async with serving([str(installed(name) / program), *words], port, directory) as server:
        behind = f"Easel before {peer.name}"
        targets = [
            easel,
            Target(peer.name, f"http://127.0.0.1:{port}/predict", (server,)),
            Target(behind, await in_front(port), (envoy, server)),
        ]
        await eventually(partial(answers, targets[1].url), deadline_s=60)
        found = await rounds(targets, args, args.connections, script, peer=server)
    told(found)
    print(f"{peer.name} behind Easel's gateway: {ratio(found, behind, peer.name):.2f} x its own throughput")
    what = f"throughput beside {peer.name}"
    return verdict(what, ratio(found, easel.name, peer.name), peer.gate, "x", at_least=True)


async def answers(url: str) -> bool:
    """Whether the model answers there."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(url, json={"x": [1, 2, 3, 4]}) as answer:
                return answer.status == 200 and "score" in await answer.json()
        except aiohttp.ClientError:
            return False


class Route(Struct, frozen=True):
    """Easel's and a bare Envoy's way to the same server."""

    easel: Target
    mirrored: Target
    bare: Target


@asynccontextmanager
async def routes(r: Rig, envoy: Envoy, kind: str, options: tuple[str, ...]) -> AsyncIterator[Route]:
    """The model in one uvicorn with these options, a second one that gets copies, and the ways to the first."""
    port, copies_port, simple_port = free_port(), free_port(), free_port()
    uvicorn = [sys.executable, "-m", "uvicorn", "asgi:app", "--host", "0.0.0.0", "--log-level", "warning",
               "--no-access-log", *options]  # fmt: skip
    simple = await plain_envoy(r.directory, f"bare-{kind}", bare(simple_port, port), simple_port)
    try:
        async with (
            serving([*uvicorn, "--port", str(port)], port, r.directory) as model,
            serving([*uvicorn, "--port", str(copies_port)], copies_port, r.directory) as copies,
        ):
            await r.acknowledged(r.put(shadow(f"copies_{kind}", copies_port)))
            await r.acknowledged(r.put(features(f"ocr_{kind}", port)))
            tenth = Mirroring(targets=(f"copies_{kind}",), percent=10)
            await r.acknowledged(r.put(features(f"mirrored_{kind}", port, tenth)))
            path = envoy.url + "/api/predict/{}/predict"
            yield Route(
                Target("Easel, all features", path.format(f"ocr_{kind}"), (envoy.pid, model)),
                Target("Easel, all features, 10 % mirrored", path.format(f"mirrored_{kind}"),
                       (envoy.pid, model, copies)),
                Target("bare Envoy", simple.url + "/predict", (simple.pid, model)),
            )  # fmt: skip
    finally:
        await simple.stop()


async def main(args: argparse.Namespace) -> int:
    """Exit code 0 where every gate is met."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk (Debian: apt-get install wrk)")
    directory = Path(tempfile.mkdtemp(prefix="easel-bench-"))
    script = directory / "post.lua"
    script.write_text(POST)
    met: list[bool] = []
    try:
        async with rig(directory) as r:
            envoy = await r.envoy()
            print("before a plain ASGI server (uvicorn as pip installs it):")
            async with routes(r, envoy, "plain", PLAIN) as found:
                met += await beside_bare(found, args, script)
            print("before the same with httptools and uvloop, as the peers have it:")
            async with routes(r, envoy, "fast", FAST) as found:
                await against_bare(found, args, script)
                for name in args.peers.split(","):

                    async def in_front(peer_port: int, name: str = name) -> str:
                        await r.acknowledged(r.put(lean(name, peer_port)))
                        return f"{envoy.url}/api/predict/{name}/predict"

                    met.append(await beside_peer(name, found.easel, envoy.pid, in_front, args, script, directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if all(met) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--peers", default=",".join(PEERS), help="which of them, comma between")
    raise SystemExit(asyncio.run(main(parser.parse_args())))
