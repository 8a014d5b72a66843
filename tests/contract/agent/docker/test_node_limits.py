"""A node that is a part of its machine: what its replicas may use together is enforced, or called accounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from easel_agent.watched import LimitsWatched
from easel_kit.testing import eventually
from tests.contract.agent.rig import Rig, SmallRig, docker_runtime, process_runtime
from tests.docker_rig import docker


def capacity(runtime: Rig) -> str:
    """As Describe says it."""
    return runtime.agent.what.capacity()


@pytest.mark.docker
async def test_containers_and_processes_share_one_limit(short_path: Path, small_image: str, no_leftovers: None) -> None:
    """Both lie in the node's group, and whoever passes its memory is ended though his own limit allows more."""
    async with docker_runtime(short_path / "agent", kind=SmallRig, cpu=1.5, memory_mib=200) as runtime:
        await eventually(lambda: not runtime.agent.docker or not runtime.agent.docker.events.why_not)
        assert capacity(runtime).startswith("enforced")
        run = await runtime.run(script="exec httpd -f -p $PORT", memory_mib=150)
        await runtime.ready(run)
        pid = int(docker("inspect", "--format", "{{.State.Pid}}", run.replica))
        assert runtime.agent.parent_group
        assert runtime.agent.parent_group in Path(f"/proc/{pid}/cgroup").read_text()

        hog = "x=$(head -c 400m /dev/zero | tr '\\0' a); sleep 100"
        greedy = await runtime.run(script=hog, memory_mib=1000)

        report = await runtime.until(greedy, lambda seen: seen.phase == "backoff")
        assert report.exit_code in (-9, 137)


async def test_a_whole_machine(short_path: Path) -> None:
    """Nothing is promised to anybody else."""
    async with process_runtime(short_path / "agent") as runtime:
        assert capacity(runtime) == "whole machine"


async def test_a_part_that_nothing_holds(short_path: Path) -> None:
    """Where no control group can be made."""
    async with process_runtime(short_path / "agent", limits=LimitsWatched(), cpu=1.0) as runtime:
        assert capacity(runtime).startswith("accounted")
