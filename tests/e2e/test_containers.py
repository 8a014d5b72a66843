"""A platform with a Docker engine: what only containers can show. Releases, drains, zero: test_releases, test_zero."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from easel_kit.testing import eventually
from easel_sdk import Client
from tests.docker_private import PrivateEngine
from tests.docker_registry import Registry
from tests.docker_rig import SMALL_IMAGE, docker, nothing_left
from tests.e2e.load import steady_load
from tests.e2e.platform import BASE_IMAGE, Platform, deploy, remove, running_platform, spec

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
SERVE = "exec httpd -f -p $PORT"


def of_image(name: str, image: str = BASE_IMAGE, **changes: Any) -> dict[str, Any]:
    """A service of an image."""
    document = spec(name, **changes)
    document["metadata"]["cpu"] = 0.25
    document["containers"][0]["image"] = image
    return document


def small(name: str, image: str = SMALL_IMAGE, **changes: Any) -> dict[str, Any]:
    """A service that is there at once and answers 404."""
    document: dict[str, Any] = {
        "metadata": {"name": name, "instance": 1, "cpu": 0.1, "memory": 64},
        "containers": [{"image": image, "script": SERVE, "port": 8000}],
    }
    return document | changes


async def pids(easel: Client, name: str) -> set[int]:
    """Of the replicas that are ready."""
    return {replica.pid for replica in await easel.replicas.list(name) if replica.ready}


async def test_the_agent_dies(platform: Platform, easel: Client, engine: str) -> None:
    """Its containers go on answering, and its next life has them as they are: nothing is started anew."""
    service = await deploy(easel, of_image("kept", instance=2))
    try:
        before = await pids(easel, "kept")
        async with steady_load(service.endpoint, service.token, method="POST", clients=2) as load:
            await load.answered_more(20)
            await platform.kill("agent")
            await load.answered_more(50)

        async def adopted() -> bool:
            return await pids(easel, "kept") == before

        await eventually(adopted)
        assert load.failed() == []
        assert {replica.restarts for replica in await easel.replicas.list("kept")} == {0}
    finally:
        await remove(easel, "kept")


async def test_an_engine_with_live_restore_dies(short_path: Path, live_engine: PrivateEngine) -> None:
    """kill -9 of it under load costs no request; scaling waits for it and goes on when it is back."""
    live_engine.load(BASE_IMAGE)
    env = {"EASEL_AGENT_DOCKER": live_engine.url}
    with running_platform(short_path / "home", env=env) as platform:
        async with platform.client() as easel:
            service = await deploy(easel, of_image("kept", instance=2))
            before = await pids(easel, "kept")
            async with steady_load(service.endpoint, service.token, method="POST", clients=2) as load:
                await load.answered_more(20)
                await asyncio.to_thread(live_engine.kill)
                await load.answered_more(50)
                await easel.services.scale("kept", 3)
                await asyncio.to_thread(live_engine.start)

                async def three() -> bool:
                    return len(await pids(easel, "kept")) == 3

                await eventually(three, 60)
                await load.answered_more(20)

            assert load.failed() == []
            assert before < await pids(easel, "kept")


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_an_engine_takes_its_containers_along(short_path: Path, own_engine: PrivateEngine, how: str) -> None:
    """They are started again when it is back; then all is answered."""
    own_engine.load(BASE_IMAGE)
    env = {"EASEL_AGENT_DOCKER": own_engine.url}
    with running_platform(short_path / "home", env=env) as platform:
        async with platform.client() as easel:
            service = await deploy(easel, of_image("again", instance=2))
            before = await pids(easel, "again")
            await asyncio.to_thread(getattr(own_engine, how))
            await asyncio.to_thread(own_engine.start)

            async def anew() -> bool:
                now = await pids(easel, "again")
                return len(now) == 2 and not now & before

            await eventually(anew, 60)
            async with steady_load(service.endpoint, service.token, clients=2) as load:
                await load.answered_more(50)
            assert load.failed() == []
        platform.down()
        # One that is stopped while it removes a container can keep that one, dead: its mount is busy from then on.
        states = [] if how == "stop" else ["--all"]
        assert docker("ps", "--quiet", *states, url=own_engine.url) == ""
        assert docker("network", "ls", "--quiet", "--filter", "label=easel.agent", url=own_engine.url) == ""


async def test_a_private_registry(
    platform: Platform, easel: Client, registry: Registry, small_image: str, tmp_path: Path
) -> None:
    """A wrong login is told; the right one is never shown; the digest is, and stays where the tag moves on."""
    reference = registry.push(small_image, "team/private:1")
    digest = registry.digest("team/private:1")
    await easel.services.create(small("private", reference, dockerAuth=registry.wrong_login))
    try:

        async def told() -> bool:
            return "refused the login" in (await easel.services.get("private")).message

        await eventually(told, 60)
        file = tmp_path / "login.json"
        file.write_text(json.dumps({"dockerAuth": registry.login}))
        assert registry.login not in platform.easel("modify", "private", "-s", str(file))

        async def running() -> bool:
            return (await easel.services.get("private")).status == "Running"

        await eventually(running, 60)
        described = platform.easel("desc", "private")
        assert digest[:19] in described
        assert registry.login not in described + json.dumps(platform.read("desc", "private"))
        (tmp_path / "Dockerfile").write_text(f"FROM {small_image}\nENV NEW=1\n")
        docker("build", "--quiet", "--label", "easel.test=1", "--tag", "easel-test/moved:1", str(tmp_path))
        registry.push("easel-test/moved:1", "team/private:1")
        docker("rmi", "--force", "easel-test/moved:1")
        assert registry.digest("team/private:1") != digest
        await easel.services.scale("private", 2)
        await easel.wait("private", timeout_s=60)

        views = await easel.replicas.list("private")
        assert {dict(view.pins)["containers[0].image"] for view in views if view.ready} == {digest}
    finally:
        await remove(easel, "private")


async def test_processes_and_containers_side_by_side(platform: Platform, easel: Client, engine: str) -> None:
    """One platform, one node; a service may go from one to the other in an update under load."""
    process = spec("mixed", instance=1)
    service = await deploy(easel, process)
    try:
        async with steady_load(service.endpoint, service.token, method="POST", clients=2) as load:
            await load.answered_more(20)
            changed = await easel.services.update("mixed", of_image("mixed"))
            await easel.wait(changed, timeout_s=90)
            await load.answered_more(20)
        assert load.failed() == []
        assert [view.runtime for view in await easel.replicas.list("mixed") if view.ready] == ["docker"]
        assert "docker" in platform.easel("node", "ls")
    finally:
        await remove(easel, "mixed")


async def test_images_of_the_node(platform: Platform, easel: Client, small_image: str) -> None:
    """As its engine has them."""
    assert small_image.partition(":")[0] in platform.easel("image", "ls")
    assert small_image in {tag for image in (await easel.nodes.images()).images for tag in image.tags}


async def test_a_node_without_an_engine(short_path: Path) -> None:
    """Nothing is placed there, and what is missing is said."""
    with running_platform(short_path / "home", env={"EASEL_AGENT_DOCKER": ""}) as platform:
        async with platform.client() as easel:
            await easel.services.create(small("nowhere"))

            async def told() -> bool:
                return "no Docker engine" in platform.easel("explain", "nowhere")

            await eventually(told, 30)
            assert (await easel.services.get("nowhere")).status == "Waiting"


async def test_down_leaves_nothing(short_path: Path, small_image: str) -> None:
    """No container, network or volume of the platform's."""
    with nothing_left(), running_platform(short_path / "home") as platform:
        async with platform.client() as easel:
            await deploy(easel, small("gone", metadata={"name": "gone", "instance": 4, "cpu": 0.1, "memory": 64}))
