"""The scheduler, the real agent and a real engine: a container is pinned, listed, and outlives its agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from easel_contracts.spec import Image, Lifecycle, Resources, RevisionSpec
from easel_kit.testing import eventually
from easel_proto.v1 import nodes_pb2
from easel_scheduler.decide.world import Replica
from tests.flow.scheduler.platform import AUTH, Platform, platform
from tests.flow.scheduler.test_real_agent import running_agent
from tests.unit.scheduler.build import service

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("no_leftovers")]


async def test_a_container_outlives_its_agent(
    short_path: Path, nats_url: str, postgres_dsn: str, small_image: str
) -> None:
    """Killed and started again, the agent has it still: the same replica, never told unready; then it drains."""
    address = f"unix:{short_path}/agent.sock"
    spec = RevisionSpec(
        number=1, resources=Resources(cpu=0.1, memory_mib=64), port=8000, script="exec httpd -f -p $PORT -h /etc",
        image=Image(reference=small_image, pull="Never"), lifecycle=Lifecycle(termination_grace_s=5.0),
    )  # fmt: skip
    async with platform(short_path, nats_url, postgres_dsn, [address], wait_for_nodes=False) as world:
        async with running_agent(world, short_path) as process:
            await world.tell("service", "created", "ocr", service(1, spec))
            (before,) = await world.until(1, "ready")
            assert before.runtime == "docker"
            assert before.pins["containers[0].image"].startswith("local:sha256:")
            async with world.api() as (_, nodes):
                found = await nodes.ListImages(nodes_pb2.ListImagesRequest(), metadata=AUTH)
                assert small_image in [tag for x in found.images for tag in x.tags]
                assert not found.silent
            process.kill()
            await process.wait()
        async with running_agent(world, short_path):
            after = await eventually(lambda: _adopted(world, before.run))
            assert (after.id, after.state, after.pid, after.endpoints) == (
                before.id, "ready", before.pid, before.endpoints,
            )  # fmt: skip
            assert [r.id for r in await world.replicas()] == [before.id]
            assert "unready" not in world.verbs(before.id)
            await world.tell("service", "stopped", "ocr", service(1, spec, wanted="stopped", generation=2), 2)
            await world.until(1, "draining")
            await world.drained(before.id)
            await world.until(1, "stopped")


async def _adopted(world: Platform, run: str | None) -> Replica | None:
    return next((r for r in await world.replicas() if r.run != run), None)
