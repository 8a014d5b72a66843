"""/live, /ready and /metrics of a process, about itself."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Check = Callable[[], bool | str]
"""True: ready; False or a sentence: not ready, and why."""


class Health(Collector):
    """Collects checks and gauges; values are read when somebody asks."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._checks: dict[str, Check] = {}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._runner: web.AppRunner | None = None

    def check(self, name: str, check: Check) -> None:
        """Adds a condition of /ready."""
        self._checks[name] = check

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Adds a gauge `easel_<name>`; the unit belongs into the name."""
        self._gauges[name] = (help_text, value)

    def collect(self) -> list[GaugeMetricFamily]:
        """What prometheus_client asks a collector for."""
        found = []
        for name, (help_text, value) in self._gauges.items():
            family = GaugeMetricFamily(f"easel_{name}", help_text, labels=["process"])
            family.add_metric([self._process], value())
            found.append(family)
        return found

    def unready(self) -> dict[str, str]:
        """Checks that do not pass, with what they say."""
        answers = {name: check() for name, check in self._checks.items()}
        return {
            name: found if isinstance(found, str) else "not yet" for name, found in answers.items() if found is not True
        }

    async def serve(self, address: str) -> None:
        """Serves on unix:/path or host:port."""
        app = web.Application()
        app.add_routes(
            [web.get("/live", self._live), web.get("/ready", self._ready), web.get("/metrics", self._metrics)]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        if address.startswith("unix:"):
            await web.UnixSite(self._runner, address.removeprefix("unix:")).start()
        else:
            host, _, port = address.rpartition(":")
            await web.TCPSite(self._runner, host, int(port)).start()

    async def stop(self) -> None:
        """Stops serving."""
        if self._runner:
            await self._runner.cleanup()

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"process": self._process, "live": True})

    async def _ready(self, _: web.Request) -> web.Response:
        unready = self.unready()
        body = {"process": self._process, "ready": not unready, "not_ready": unready}
        return web.json_response(body, status=503 if unready else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), content_type="text/plain")
