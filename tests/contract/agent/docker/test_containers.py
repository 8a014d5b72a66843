"""What a container may and may not do, what it shares with its sidecars, what of it outlives a run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from easel_contracts.spec import Image, Mount, Resources, ScratchSource, Security, Sidecar
from easel_kit.testing import eventually
from tests.contract.agent.rig import DockerRig, SmallRig, docker_runtime
from tests.docker_rig import docker

pytestmark = pytest.mark.docker

SERVE = "exec httpd -f -p $PORT"
WAIT = "exec sleep 300"


async def shown(runtime: DockerRig, script: str, **options: Any) -> str:
    """What a script prints."""
    return await runtime.printed(
        await runtime.run(script=f"{script}\necho that is all; {WAIT}", **options), "that is all"
    )


def sidecar(runtime: DockerRig, script: str, **options: Any) -> Sidecar:
    """One of the same image."""
    return Sidecar(image=runtime.image, script=script, **options)


class TestRights:
    """Few, and less when asked for."""

    async def test_few_capabilities_and_no_new_ones(self, runtime: DockerRig) -> None:
        """Those that servers need to become a user of their own."""
        output = await shown(runtime, "grep -E 'CapBnd|NoNewPrivs' /proc/self/status")

        kept = int(next(line.split()[1] for line in output.splitlines() if line.startswith("CapBnd")), 16)
        numbers = {number for number in range(64) if kept >> number & 1}
        assert numbers == {0, 1, 3, 5, 6, 7, 10}  # chown dac_override fowner kill setgid setuid net_bind_service
        assert "NoNewPrivs:\t1" in output

    async def test_read_only_root(self, runtime: DockerRig) -> None:
        """Only /tmp and mounts can be written to."""
        image = Image(reference=runtime.image.reference, pull="Never", security=Security(read_only_root=True))

        output = await shown(runtime, "touch /x || echo root refused; touch /tmp/x /scratch/x && echo others taken",
                             image=image)  # fmt: skip

        assert "root refused" in output
        assert "others taken" in output

    async def test_user(self, runtime: DockerRig) -> None:
        """As asked for; what it may write to is its scratch directory."""
        image = Image(reference=runtime.image.reference, pull="Never", security=Security(user="1234:99", non_root=True))

        output = await shown(runtime, "id -u; id -g; touch /scratch/x && echo written", image=image)

        assert {"1234", "99", "written"} <= set(output.splitlines())

    async def test_an_image_that_would_run_as_root_is_refused(self, runtime: DockerRig) -> None:
        """Before anything of it runs."""
        image = Image(reference=runtime.image.reference, pull="Never", security=Security(non_root=True))
        run = await runtime.run(script=WAIT, image=image)

        report = await runtime.until(run, lambda seen: seen.phase == "failed")

        assert report.cause == "image"
        assert "security.user" in report.message

    async def test_the_engines_socket_is_never_mounted(self, runtime: DockerRig, tmp_path: Path) -> None:
        """Not by a link either: it is root on the node."""
        (tmp_path / "link").symlink_to("/var/run/docker.sock")
        for source in ("/var/run/docker.sock", "/run/docker.sock", str(tmp_path / "link")):
            mount = Mount(mount_path="/mnt/x", host_path=source)
            run = await runtime.run(script=WAIT, mounts=(mount,))

            assert (await runtime.until(run, lambda seen: seen.phase == "failed")).cause == "mount"

    async def test_replicas_do_not_reach_each_other(self, runtime: DockerRig) -> None:
        """Only the gateway reaches them: beside it there is no token."""
        served = await runtime.ready(await runtime.run(script=SERVE))

        output = await shown(runtime, f"nc -w 2 {served.ip} {served.port} < /dev/null && echo open || echo closed")

        assert "closed" in output


class TestLimits:
    """Hard ones."""

    async def test_a_child_out_of_memory(self, python_runtime: DockerRig) -> None:
        """The program lives on, and it is told: the engine's own flag does not say so."""
        hog = "python -c 'x = bytearray(900 << 20)'"
        run = await python_runtime.run(script=f"{hog}; echo child gave $?; {WAIT}", memory_mib=64)

        await python_runtime.printed(run, "child gave 137")

        assert "out of memory" in await python_runtime.printed(run, "out of memory")
        report = python_runtime.agent.fleet.replicas[run.replica].report
        assert (report.phase, report.restarts) == ("starting", 0)

    async def test_processes_are_counted(self, runtime: DockerRig) -> None:
        """A fork bomb stays inside."""
        run = runtime.spec(script=f"echo limit $(cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max); {WAIT}")

        assert "limit 4096" in await runtime.printed(await runtime.start(run), "limit")

    async def test_cpu_and_memory_as_the_engine_has_them(self, runtime: DockerRig) -> None:
        """No swap beside the memory."""
        run = await runtime.run(script=SERVE, memory_mib=100)
        await runtime.ready(run)

        form = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"
        assert docker("inspect", "--format", form, run.replica) == f"1000000000 {100 << 20} {100 << 20}"

    async def test_shared_memory(self, runtime: DockerRig) -> None:
        """By shm_size, or by a scratch directory in memory at /dev/shm, as EAS has it."""
        by_size = await shown(runtime, "df -m /dev/shm | tail -1", shm_mib=200)
        mount = Mount(mount_path="/dev/shm", read_only=False, source=ScratchSource(medium="memory", size_mib=150))
        by_mount = await shown(runtime, "df -m /dev/shm | tail -1", mounts=(mount,))

        assert by_size.split()[1] == "200"
        assert by_mount.split()[1] == "150"


class TestScratch:
    """`empty_dir`."""

    async def test_on_disk_it_outlives_a_run(self, runtime: DockerRig) -> None:
        """The next container of the replica finds it; the next replica does not."""
        script = "echo x >> /scratch/runs; wc -l < /scratch/runs; test $(wc -l < /scratch/runs) = 2 || exit 3; " + SERVE
        run = await runtime.run(script=script)
        await runtime.ready(run)
        directory = runtime.home(run)

        await runtime.stop(run)

        assert not directory.exists()

    async def test_in_memory(self, runtime: DockerRig) -> None:
        """Of the size asked for, shared with sidecars, gone with the replica (see `no_leftovers`)."""
        mount = Mount(mount_path="/fast", read_only=False, source=ScratchSource(medium="memory", size_mib=20))
        run = await runtime.run(
            script=f"df -m /fast | tail -1; while ! test -e /fast/x; do sleep 0.1; done; echo seen; {WAIT}",
            mounts=(mount,), sidecars=(sidecar(runtime, f"touch /fast/x; {WAIT}"),),
        )  # fmt: skip

        assert (await runtime.printed(run, "seen")).split()[:2] == ["tmpfs", "20"]


class TestSidecars:
    """Several containers, one replica."""

    async def test_they_share_localhost(self, runtime: DockerRig) -> None:
        """Each with its own environment; what they print is told apart."""
        runtime.control.env, runtime.control.sidecars = {"A": "main"}, ({"A": "side"},)
        run = await runtime.run(
            script=f"echo main has $A; until nc 127.0.0.1 9000 < /dev/null; do sleep 0.1; done; echo reached; {SERVE}",
            env_names=("A",),
            sidecars=(sidecar(runtime, "echo side has $A; exec httpd -f -p $PORT", port=9000, env_names=("A",)),),
        )  # fmt: skip
        await runtime.ready(run)

        output = await runtime.printed(run, "reached")

        assert "main has main" in output
        assert "[sidecar 1] side has side" in output

    async def test_the_end_of_one_is_the_end_of_the_run(self, runtime: DockerRig) -> None:
        """All begin anew together."""
        side = sidecar(runtime, "sleep 1; echo leaving; exit 7")
        run = await runtime.run(script=SERVE, sidecars=(side,))

        report = await runtime.until(run, lambda seen: seen.phase == "backoff")
        await runtime.until(run, lambda seen: seen.restarts == 1)

        assert report.exit_code == 7
        assert "sidecar 1 ended with code 7" in "".join(text for _, text in await runtime.logs(run, previous=True))

    async def test_a_missing_program_of_one(self, runtime: DockerRig) -> None:
        """Nothing of the replica is left (see `no_leftovers`)."""
        image = Image(reference="no-such-image-of-easel:1", pull="Never")
        run = await runtime.run(script=SERVE, sidecars=(Sidecar(image=image),))

        report = await runtime.until(run, lambda seen: seen.phase == "failed")

        assert report.cause == "image"
        assert "no-such-image-of-easel" in report.message


class TestListening:
    """Where it listens is looked at inside its own network."""

    async def test_only_on_its_own_loopback(self, runtime: DockerRig) -> None:
        """What to change is said."""
        run = await runtime.run(script="exec httpd -f -p 127.0.0.1:$PORT")

        report = await runtime.until(run, lambda seen: seen.cause == "wrong_port")

        assert "bind 0.0.0.0 instead of 127.0.0.1" in report.message

    async def test_on_another_port(self, runtime: DockerRig) -> None:
        """The declared one is named."""
        run = await runtime.run(script="exec httpd -f -p 7777")

        report = await runtime.until(run, lambda seen: seen.cause == "wrong_port")

        assert "bound 7777, wanted 8000" in report.message

    async def test_never(self, runtime: DockerRig) -> None:
        """It stays starting, and why is said."""
        run = await runtime.run(script=WAIT)

        report = await runtime.until(run, lambda seen: "does not listen" in seen.message)

        assert not report.ready


class TestHealth:
    """An image's own HEALTHCHECK."""

    async def test_unhealthy_is_not_ready(self, runtime: DockerRig, tmp_path: Path) -> None:
        """As long as it says so; a readiness probe of the service would count instead."""
        image = "easel-test/healthcheck:1"
        (tmp_path / "Dockerfile").write_text(
            f"FROM {runtime.image.reference}\nHEALTHCHECK --interval=1s --retries=1 CMD test ! -e /scratch/ill\n"
        )
        docker("build", "--quiet", "--label", "easel.test=1", "--tag", image, str(tmp_path))
        try:
            run = await runtime.run(script=SERVE, image=Image(reference=image, pull="Never"))
            await runtime.ready(run)

            (runtime.home(run) / "ill").touch()
            await runtime.until(run, lambda seen: seen.phase == "running" and "HEALTHCHECK" in seen.message)
            runtime.seen[run.replica].clear()
            (runtime.home(run) / "ill").unlink()

            assert (await runtime.ready(run)).restarts == 0
            await runtime.stop(run)
        finally:
            docker("rmi", "--force", image)


async def test_fifty_at_once(runtime: DockerRig) -> None:
    """All ready, each with an address of its own, and gone in the end."""
    runs = [await runtime.run(script=SERVE, memory_mib=16) for _ in range(50)]

    await eventually(lambda: all(runtime.agent.fleet.replicas[run.replica].report.ready for run in runs), 110)

    assert len({runtime.agent.fleet.replicas[run.replica].report.ip for run in runs}) == 50
    await asyncio.gather(*(runtime.stop(run) for run in runs))


async def test_a_gpu_that_the_engine_cannot_give(short_path: Path, small_image: str, no_leftovers: None) -> None:
    """What is missing on the node is named; nothing is left of the container."""
    async with docker_runtime(short_path / "agent", kind=SmallRig, gpus=1) as runtime:
        run = await runtime.run(script=SERVE, resources=Resources(cpu=1, memory_mib=64, gpu=1))

        report = await runtime.until(run, lambda seen: seen.phase == "failed")

        assert "container toolkit" in report.message


async def test_an_address_is_not_given_again_at_once(runtime: DockerRig) -> None:
    """A gateway that has not heard yet would send one service's requests to another."""
    seen = []
    for _ in range(3):
        run = await runtime.run(script=SERVE)
        seen.append((await runtime.ready(run)).ip)
        await runtime.stop(run)

    assert len(set(seen)) == 3
