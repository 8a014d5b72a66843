"""The engine ends, is killed, comes back, is full: replicas, streams and what is left of them."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import pytest

from easel_agent.app import group_name
from easel_agent.docker.engine import Engine, EngineAway, EngineError
from easel_agent.settings import AgentSettings
from easel_contracts.spec import ExecCheck, Probe, RunSpec
from easel_kit.testing import eventually
from tests.contract.agent.rig import DockerRig, SmallRig, docker_runtime
from tests.docker_private import PrivateEngine
from tests.docker_rig import SMALL_IMAGE, docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]

SERVE = "exec httpd -f -p $PORT"


def descriptors() -> int:
    """Open files and sockets of this process."""
    return len(os.listdir("/proc/self/fd"))


async def test_streams_left_early_leave_no_connection(small_image: str) -> None:
    """500 followed logs, stats and events; then the engine still answers, and no socket is left of them."""
    engine = Engine("unix:///var/run/docker.sock")
    container = docker("run", "--detach", "--label", "easel.test=1", small_image, "sleep", "300")
    try:
        await engine.ask("GET", "version")
        before = descriptors()

        async def follow(number: int) -> None:
            path = f"containers/{container}/logs" if number % 2 else "events"
            stream = (
                engine.frames(path, params={"follow": "1", "stdout": "1"}) if number % 2 else engine.lines("GET", path)
            )
            async with aclosing(stream) as pieces:
                reading = asyncio.ensure_future(anext(aiter(pieces)))
                await asyncio.sleep(0.05)
                reading.cancel()
                await asyncio.wait({reading})

        for _ in range(5):
            await asyncio.gather(*(follow(number) for number in range(100)))

        assert (await engine.ask("GET", "version"))["ApiVersion"]
        await eventually(lambda: descriptors() <= before + 3)
    finally:
        await engine.end()
        docker("rm", "--force", container)


async def test_no_engine(short_path: Path) -> None:
    """Why nothing can be run is known, and a replica waits."""
    async with docker_runtime(short_path / "agent", kind=SmallRig, docker=f"unix://{short_path}/none.sock") as runtime:
        docker_ = runtime.agent.docker
        assert docker_ is not None
        await eventually(lambda: "no Docker engine answers" in docker_.events.why_not)

        run = await runtime.run(script=SERVE)

        report = await runtime.until(run, lambda seen: "Waiting" in seen.message)
        assert report.phase == "fetching"
        with pytest.raises(EngineAway):
            await Engine(f"unix://{short_path}/none.sock").ask("GET", "version")


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_the_engine_comes_back(short_path: Path, own_engine: PrivateEngine, how: str) -> None:
    """What it ended is started again with the same address; new replicas wait for it; nothing is left over."""
    async with docker_runtime(short_path / "agent", kind=SmallRig, docker=own_engine.url) as runtime:
        run = await runtime.run(script=SERVE)
        first = await runtime.ready(run)

        getattr(own_engine, how)()
        docker_ = runtime.agent.docker
        assert docker_ is not None
        await eventually(lambda: docker_.events.why_not)
        late = await runtime.run(script=SERVE)
        await runtime.until(late, lambda seen: "Waiting" in seen.message)
        own_engine.start()

        again = await runtime.until(run, lambda seen: seen.ready and seen.restarts >= 1)
        assert (again.ip, again.port) == (first.ip, first.port)
        await runtime.ready(late)
        await asyncio.gather(runtime.stop(run), runtime.stop(late))
        assert docker("ps", "--all", "--quiet", url=own_engine.url) == ""


async def test_live_restore(short_path: Path, live_engine: PrivateEngine) -> None:
    """An engine that leaves containers running: a kill -9 of it is not seen by the replica, and no line is lost."""
    async with docker_runtime(short_path / "agent", kind=SmallRig, docker=live_engine.url) as runtime:
        script = "i=0; while sleep 0.2; do i=$((i+1)); echo line $i; done & " + SERVE
        run = await runtime.run(script=script)
        first = await runtime.ready(run)
        await runtime.printed(run, "line 3")

        live_engine.kill()
        docker_ = runtime.agent.docker
        assert docker_ is not None
        await eventually(lambda: docker_.events.why_not)
        live_engine.start()
        await eventually(lambda: not docker_.events.why_not, 30)
        seen = (await runtime.printed(run, "line 3")).count("line")
        await eventually_more(runtime, run, seen + 5)

        report = runtime.agent.fleet.replicas[run.replica].report
        assert (report.ready, report.restarts, report.pid) == (True, 0, first.pid)
        lines = [text.split()[1] for stream, text in await runtime.logs(run) if stream == "stdout"]
        assert lines == [str(number) for number in range(1, len(lines) + 1)]


async def test_probes_in_the_container_wait_for_the_engine(short_path: Path, live_engine: PrivateEngine) -> None:
    """An engine that is away says nothing of a container: it is neither ended nor called unready for that."""
    probe = Probe(check=ExecCheck(command=("true",)), period_s=0.1, failure_threshold=1)
    async with docker_runtime(short_path / "agent", kind=SmallRig, docker=live_engine.url) as runtime:
        run = await runtime.run(script=SERVE, readiness=probe, liveness=probe)
        first = await runtime.ready(run)
        live_engine.kill()
        docker_ = runtime.agent.docker
        assert docker_ is not None
        await eventually(lambda: docker_.events.why_not)
        late = await runtime.run(script=SERVE)
        await runtime.until(late, lambda seen: "Waiting" in seen.message)
        live_engine.start()
        await runtime.ready(late)

        assert runtime.agent.fleet.replicas[run.replica].report == first


async def eventually_more(runtime: DockerRig, run: RunSpec, count: int) -> None:
    """Until the log has so many lines."""

    async def enough() -> bool:
        return sum(stream == "stdout" for stream, _ in await runtime.logs(run)) >= count

    await eventually(enough, 30)


async def test_orphans_are_removed(short_path: Path, own_engine: PrivateEngine) -> None:
    """At the agent's start, and when an engine that was away is back: of this agent's group, and of no other."""
    home = short_path / "agent"
    group = group_name(AgentSettings(home=home, nats_url="", mode="standalone"))

    def orphan(name: str, of: str) -> None:
        docker("run", "--detach", "--name", name, "--label", f"easel.agent={of}", "--label", f"easel.replica={name}",
               "--network", "none", SMALL_IMAGE, "sleep", "300", url=own_engine.url)  # fmt: skip

    def there() -> set[str]:
        return set(docker("ps", "--all", "--format", "{{.Names}}", url=own_engine.url).split())

    orphan("old", group)
    orphan("other", "easel-somebody-elses")
    async with docker_runtime(home, kind=SmallRig, docker=own_engine.url) as runtime:
        await eventually(lambda: there() == {"other"}, 30)
        own_engine.stop()
        docker_ = runtime.agent.docker
        assert docker_ is not None
        await eventually(lambda: docker_.events.why_not)
        own_engine.start()
        orphan("late", group)
        own_engine.stop()
        await eventually(lambda: docker_.events.why_not)
        own_engine.start()
        await eventually(lambda: "late" not in there(), 30)


async def test_a_full_disk(short_path: Path, small_disk_engine: PrivateEngine) -> None:
    """What runs goes on; what is new is refused with the reason, and is taken when there is room again."""
    async with docker_runtime(short_path / "agent", kind=SmallRig, docker=small_disk_engine.url) as runtime:
        run = await runtime.run(script=SERVE)
        first = await runtime.ready(run)
        filler = small_disk_engine.fill()

        late = await runtime.run(script=SERVE)
        report = await runtime.until(late, lambda seen: seen.phase == "failed")
        assert "disk is full" in report.message
        assert runtime.agent.fleet.replicas[run.replica].report == first
        filler.unlink()
        await runtime.ready(await runtime.run(script=SERVE))


async def test_a_container_whose_creation_was_not_answered(short_path: Path, own_engine: PrivateEngine) -> None:
    """Nobody knows its id; it is gone with the agent at the latest."""
    async with docker_runtime(short_path / "agent", kind=SmallRig, docker=own_engine.url) as runtime:
        run = await runtime.run(script=SERVE)
        await runtime.ready(run)
        group = runtime.agent.docker.group if runtime.agent.docker else ""
        labels = ["--label", f"easel.agent={group}", "--label", f"easel.replica={run.replica}"]
        docker("create", *labels, SMALL_IMAGE, url=own_engine.url)
        await runtime.stop(run)

    assert docker("ps", "--all", "--quiet", url=own_engine.url) == ""


async def test_an_engine_error_is_not_an_absence(small_image: str) -> None:
    """Refused is not the same as gone."""
    engine = Engine("unix:///var/run/docker.sock")
    try:
        with pytest.raises(EngineError) as caught:
            await engine.ask("GET", "containers/none/json")
        assert caught.value.status == 404
    finally:
        await engine.end()
