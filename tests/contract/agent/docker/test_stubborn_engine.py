"""An engine that refuses to remove a dead container: a nuisance, not the end of its node.

Such an engine cannot be made to order (it happens where it ends while it starts a container), so this one is played.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from easel_agent.app import group_name
from easel_agent.settings import AgentSettings
from easel_kit.testing import eventually
from tests.contract.agent.rig import SmallRig, docker_runtime


class Stubborn:
    """Answers what the agent asks at its start; has one dead container of the agent's, and keeps it."""

    def __init__(self, group: str) -> None:
        self._group, self.asked = group, 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """By path, whatever the version."""
        path = request.path.removeprefix("/v1.41")
        if request.method == "DELETE":
            self.asked += 1
            return web.json_response(
                {"message": "failed to remove root filesystem: device or resource busy"}, status=500
            )
        if path == "/events":
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.Event().wait()
        labels = {"easel.agent": self._group, "easel.replica": "svc-1-dead0", "easel.container": "0"}
        answers: dict[str, object] = {
            "/version": {"ApiVersion": "1.41"}, "/info": {"ServerVersion": "20.10", "Driver": "overlay2"},
            "/containers/json": [{"Id": "d" * 64, "State": "dead", "Labels": labels}], "/volumes": {"Volumes": None},
        }  # fmt: skip
        return web.json_response(
            answers.get(path, {"message": "no such thing"}), status=200 if path in answers else 404
        )


@pytest.fixture
async def stubborn(short_path: Path) -> AsyncIterator[Stubborn]:
    """Listens at engine.sock."""
    group = group_name(AgentSettings(home=short_path / "agent", nats_url="", mode="standalone"))
    played = Stubborn(group)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", played.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(short_path / "engine.sock")).start()
    yield played
    await runner.cleanup()


async def test_the_node_goes_on(short_path: Path, stubborn: Stubborn) -> None:
    """At the agent's start and when the engine is back it is asked, and containers can be run all the same."""
    async with docker_runtime(
        short_path / "agent", kind=SmallRig, docker=f"unix://{short_path}/engine.sock"
    ) as runtime:
        docker = runtime.agent.docker
        assert docker is not None
        assert stubborn.asked >= 1
        await eventually(lambda: stubborn.asked >= 2)

        assert docker.events.why_not == ""
