"""What Easel's full route costs in Envoy, beside a bare Envoy proxy: ratios of one run, shuffled rounds, median.

Backend: a second Envoy that answers by itself (native), and for throughput a plain ASGI server: uvicorn as pip
installs it; and, without a gate, with httptools and uvloop, where the server costs less than any Envoy.
Needs `wrk`. CPU is Envoy's own user + system time per request answered.

    python benchmarks/envoy_route.py [--rounds 5] [--seconds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import random
import re
import shutil
import statistics
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measuring import verdict

from easel_kit.testing import accepts, eventually
from easel_router.testing import Envoy, Rig, a_plan, free_port, rig, until

TOKEN = "YzA5ZjhkN2U2YjVhNDkzODI3MTYwNWY0ZTNkMmMxYjBhOTg3NjU0Mw=="  # as long as EAS's own tokens
TYPE = "type.googleapis.com/envoy.extensions."
GATES = {"token cpu": 1.55, "signature cpu": 1.85}
STRETCH = {"token cpu": 1.30, "signature cpu": 1.50}

PLAIN = ("--http", "h11", "--loop", "asyncio")
"""uvicorn as pip installs it, which is what `easel init` and the examples ask for."""
FAST = ("--http", "httptools", "--loop", "uvloop")

ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def bare(listen: int, backend: int) -> dict[str, Any]:
    """A plain reverse proxy: one listener, one route, one cluster."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend"}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": backend}}
    cluster = {
        "name": "backend",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    return {"static_resources": {"listeners": [listener(listen, route)], "clusters": [cluster]}}


def static(listen: int, route: dict[str, Any]) -> dict[str, Any]:
    return {"static_resources": {"listeners": [listener(listen, route)]}}


def listener(port: int, route: dict[str, Any]) -> dict[str, Any]:
    http = {
        "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": TYPE + "filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": http}]}],
    }


def native(port: int) -> dict[str, Any]:
    """A backend that answers at once."""
    return static(port, {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}})


def signature(path: str) -> list[str]:
    """The three headers of a request signed as EAS's clients do."""
    date, kind, md5 = "Mon, 02 Jan 2026 15:04:05 GMT", "application/octet-stream", hashlib.md5(b"").hexdigest()
    message = f"GET\n{md5}\n{kind}\n{date}\n{path}"
    signed = base64.b64encode(hmac.new(TOKEN.encode(), message.encode(), hashlib.sha1).digest()).decode()
    return [f"Authorization: EAS {signed}", f"Date: {date}", f"Content-Type: {kind}", f"Content-MD5: {md5}"]


async def load(url: str, headers: list[str], connections: int, seconds: int, *options: str) -> tuple[int, float, float]:
    """Requests answered, requests per second, median in ms. `options`: further ones of wrk."""
    args = [a for h in headers for a in ("-H", h)]
    wrk = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", *options, *args, url,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out = (await wrk.communicate())[0].decode()
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"not every request was answered with 200:\n{out}")
    requests = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", out).groups()  # type: ignore[union-attr]
    return requests, rate, float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


async def measure(envoy: Envoy, path: str, headers: list[str], connections: int, seconds: int) -> dict[str, float]:
    before = envoy.cpu_s()
    requests, rate, p50 = await load(envoy.url + path, headers, connections, seconds)
    return {"cpu_us": (envoy.cpu_s() - before) * 1e6 / requests, "rps": rate, "p50_ms": p50}


async def plain_envoy(directory: Path, name: str, config: dict[str, Any], port: int) -> Envoy:
    made = Envoy(directory, name, port, 0)
    await made.start(config)
    await eventually(partial(accepts, port))
    return made


async def compare(r: Rig, full: Envoy, simple: Envoy, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians of each variant over shuffled rounds."""
    path = "/api/predict/ocr"
    variants: dict[str, tuple[Envoy, str, list[str]]] = {
        "bare": (simple, path, [f"Authorization: {TOKEN}"]),
        "token": (full, path, [f"Authorization: {TOKEN}"]),
        "signature": (full, path, signature(path)),
    }
    seen: dict[str, dict[str, list[float]]] = {}
    for _ in range(args.rounds):
        for connections in (args.connections, 1):
            for name in random.sample(sorted(variants), len(variants)):
                envoy, where, headers = variants[name]
                for key, value in (await measure(envoy, where, headers, connections, args.seconds)).items():
                    seen.setdefault(f"{name}@{connections}", {}).setdefault(key, []).append(value)
    return {name: {key: statistics.median(v) for key, v in values.items()} for name, values in seen.items()}


async def throughput(r: Rig, args: argparse.Namespace, *options: str) -> float:
    """Requests per second of the same ASGI server behind Easel's route, beside those behind a bare Envoy.

    `options` are uvicorn's: how the server is made fast, or not.
    """
    port, simple_port = free_port(), free_port()
    (r.directory / "asgi_app.py").write_text(ASGI)
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uvicorn", "asgi_app:app", "--port", str(port), "--log-level", "warning",
        "--no-access-log", *options, cwd=r.directory,
    )  # fmt: skip
    simple = await plain_envoy(r.directory, "bare-asgi", bare(simple_port, port), simple_port)
    try:
        await eventually(partial(accepts, port))
        await r.acknowledged(r.put(a_plan("asgi", port, token=TOKEN)))
        full = r.envoys[0]
        targets = {"bare": simple.url + "/", "easel": full.url + "/api/predict/asgi"}
        ratios = []
        for _ in range(3 * args.rounds):  # side by side: on a busy machine only the pairs are comparable
            rates = {
                name: (await load(targets[name], [f"Authorization: {TOKEN}"], args.connections, 1))[1]
                for name in random.sample(sorted(targets), 2)
            }
            ratios.append(rates["easel"] / rates["bare"])
        return statistics.median(ratios)
    finally:
        server.kill()
        await server.wait()
        await simple.stop()


async def main(args: argparse.Namespace) -> int:
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk (Debian: apt-get install wrk)")
    if not args.no_asgi and find_spec("uvicorn") is None:
        raise SystemExit("this benchmark needs uvicorn (pip install uvicorn httptools), or --no-asgi")
    directory = Path(tempfile.mkdtemp(prefix="easel-bench-"))
    backend_port, simple_port = free_port(), free_port()
    backend = await plain_envoy(directory, "backend", native(backend_port), backend_port)
    simple = await plain_envoy(directory, "bare", bare(simple_port, backend_port), simple_port)
    try:
        async with rig(directory) as r:
            full = await r.envoy()
            for n in range(args.services):
                r.put(a_plan(f"other{n}", backend_port, token=TOKEN))
            await r.acknowledged(r.put(a_plan("ocr", backend_port, token=TOKEN)))
            await until(lambda: "ocr" in r.hashes, "route")
            found = await compare(r, full, simple, args)
            rates = [await throughput(r, args, *PLAIN), await throughput(r, args, *FAST)] if not args.no_asgi else []
    finally:
        await backend.stop()
        await simple.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return report(found, rates, args)


def report(found: dict[str, dict[str, float]], rates: list[float], args: argparse.Namespace) -> int:
    many, one = f"@{args.connections}", "@1"
    result = {
        "token cpu": found["token" + many]["cpu_us"] / found["bare" + many]["cpu_us"],
        "signature cpu": found["signature" + many]["cpu_us"] / found["bare" + many]["cpu_us"],
    }
    added_ms = found["token" + one]["p50_ms"] - found["bare" + one]["p50_ms"]
    print(json.dumps({name: {k: round(v, 3) for k, v in values.items()} for name, values in found.items()}, indent=1))
    met = [
        verdict(f"Envoy {name} per request (stretch {STRETCH[name]})", ratio, GATES[name], "x bare")
        for name, ratio in result.items()
    ]
    met.append(verdict("median at one connection, more than bare", added_ms, 0.15, "ms"))
    if rates:
        plain, fast = rates
        met.append(verdict("throughput before a plain ASGI server", plain, 0.85, "x bare", at_least=True))
        print(f"before an ASGI server that costs less than Envoy (httptools, uvloop): {fast:.2f} x bare, no gate")
    return 0 if all(met) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--services", type=int, default=100, help="other services that have a route too")
    parser.add_argument("--no-asgi", action="store_true")
    raise SystemExit(asyncio.run(main(parser.parse_args())))
