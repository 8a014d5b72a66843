"""What the engine tells of containers, without asking again and again: who ended, ran out of memory, is unhealthy.

Events are lost while the engine is away; what it holds when it is back is looked at then. One subscription for the
agent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Protocol

from easel_agent.docker.engine import Engine, EngineAway, EngineError
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger

log = get_logger("docker")
AGAIN_S = 0.5
SELDOM_S = 5.0
"""Where no engine has ever answered."""
WANTED = ("die", "oom", "health_status", "destroy")


class Listener(Protocol):
    """Who wants to hear of one container."""

    def on_die(self, container: str, code: int) -> None:
        """It has ended."""

    def on_oom(self, container: str) -> None:
        """The kernel killed one of its processes for memory."""

    def on_health(self, container: str, state: str) -> None:
        """Its image's own check says `healthy` or `unhealthy`."""


class Events:
    """Tells listeners, and knows whether the engine answers."""

    def __init__(self, engine: Engine, label: str, clock: Clock) -> None:
        """`label`: `name=value` that all our containers have."""
        self._engine, self._label, self._clock = engine, label, clock
        self._listeners: dict[str, Listener] = {}
        self.on_back: Callable[[], None] = lambda: None
        """Called each time the engine begins to answer."""
        self.on_changed: Callable[[], None] = lambda: None
        """Called when `why_not` has changed."""
        self.why_not = "it was not asked yet"
        """Why no container can be run; empty: they can."""
        self.version = ""
        self.cgroup_driver = ""
        """`cgroupfs` or `systemd`; empty: not known yet."""

    def listen(self, container: str, listener: Listener) -> None:
        """From here on."""
        self._listeners[container] = listener

    def forget(self, container: str) -> None:
        """No longer."""
        self._listeners.pop(container, None)

    async def run(self) -> None:
        """For as long as the agent."""
        while True:
            try:
                await self._follow()
            except EngineAway as error:
                self._tell(self._engine.silence(), error.message)
            except EngineError as error:
                self._tell(f"the Docker engine at {self._engine.url} cannot be used: {error.message}")
            await self._clock.sleep(AGAIN_S if self.version else SELDOM_S)

    async def look(self) -> None:
        """Ask the engine what it is. Raises EngineAway or EngineError."""
        found = await self._engine.ask("GET", "info")
        self.version = f"Docker {found.get('ServerVersion', '?')}, {found.get('Driver', '?')}"
        self.cgroup_driver = str(found.get("CgroupDriver", ""))
        self._tell("")

    async def _follow(self) -> None:
        filters = json.dumps({"type": ["container"], "event": list(WANTED), "label": [self._label]})
        async with aclosing(self._engine.lines("GET", "events", params={"filters": filters})) as events:
            await self.look()
            await self._look_at_all()
            self.on_back()
            async for event in events:
                self._take(event)
        raise EngineAway("its events ended")

    async def _look_at_all(self) -> None:
        """What ended while nobody listened."""
        filters = json.dumps({"label": [self._label]})
        listed = await self._engine.ask("GET", "containers/json", params={"all": "true", "filters": filters})
        running = {item["Id"] for item in listed if item["State"] in ("running", "paused", "created", "restarting")}
        present = {item["Id"] for item in listed}
        for container in [name for name in self._listeners if name not in running]:
            code = 137
            if container in present:
                state = (await self._engine.ask("GET", f"containers/{container}/json"))["State"]
                code = int(state["ExitCode"])
                if state.get("OOMKilled") and (listener := self._listeners.get(container)):
                    listener.on_oom(container)
            if listener := self._listeners.get(container):
                listener.on_die(container, code)

    def _take(self, event: dict[str, Any]) -> None:
        action, actor = str(event.get("Action", "")), event.get("Actor", {})
        listener = self._listeners.get(actor.get("ID", ""))
        if listener is None:
            return
        container = actor["ID"]
        match action.partition(":")[0]:
            case "die":
                listener.on_die(container, int(actor.get("Attributes", {}).get("exitCode", 137)))
            case "destroy":
                listener.on_die(container, 137)
            case "oom":
                listener.on_oom(container)
            case "health_status":
                listener.on_health(container, action.partition(":")[2].strip())

    def _tell(self, why_not: str, detail: str = "") -> None:
        if why_not != self.why_not:
            self.why_not = why_not
            if why_not:
                log.warning("no containers can be run", why=why_not, detail=detail)
            else:
                log.info("engine", version=self.version, url=self._engine.url)
            self.on_changed()
