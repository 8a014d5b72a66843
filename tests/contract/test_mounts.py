"""Mounts from elsewhere, as replicas of both runtimes see them. How they are fetched: tests/contract/agent/sources."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from easel_contracts.spec import GitSource, Mount, NfsSource, ObjectSource, ScratchSource
from tests.contract.agent.rig import Rig, docker_runtime, process_runtime
from tests.contract.agent.sources.git_server import commit, git_server
from tests.contract.agent.sources.s3_server import S3Server, s3_server


@pytest.fixture
def store() -> Iterator[S3Server]:
    """A store with a model."""
    with s3_server() as found:
        found.put("models", {"ocr/config.json": b'{"size": 3}', "ocr/weights/a.bin": b"AAA"})
        yield found


@asynccontextmanager
async def runtime_of(kind: str, home: Path, stores: Path) -> AsyncIterator[Rig]:
    """A runtime whose node has a login for the store."""
    if kind == "docker":
        async with docker_runtime(home, object_stores_file=stores) as made:
            yield made
    else:
        async with process_runtime(home, object_stores_file=stores) as rig:
            yield rig


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
async def runtime(
    short_path: Path, tmp_path: Path, store: S3Server, request: pytest.FixtureRequest
) -> AsyncIterator[Rig]:
    """Each runtime."""
    async with runtime_of(request.param, short_path / "agent", store.logins(tmp_path / "stores.json")) as made:
        yield made


async def test_a_repository_and_a_prefix(runtime: Rig, tmp_path: Path) -> None:
    """Read-only; what they were is reported; a second replica with these pins sees the same though they went on."""
    (tmp_path / "repos").mkdir()
    with git_server(tmp_path / "repos", "dulwich") as server:
        repo = server.make("code")
        tip = commit(repo, {"main.py": b"print('one', flush=True)"})
        mounts = (Mount(mount_path="/code", source=GitSource(repo=server.address("code"), branch="main")),
                  Mount(mount_path="/model", source=ObjectSource(url="s3://models/ocr/")))  # fmt: skip
        script = "python main.py; cat /model/weights/a.bin; touch /code/x /model/x || echo refused; sleep 100"
        run = await runtime.run(script=script, mounts=mounts)
        output = await runtime.printed(run, "refused")
        pins = runtime.agent.fleet.replicas[run.replica].report.pins

        commit(repo, {"main.py": b"print('two', flush=True)"})
        later = runtime.spec(script=script, mounts=mounts)
        await runtime.start(replace(later, pins=pins))
        again = await runtime.printed(later, "refused")

    assert "one" in output
    assert "AAA" in output
    assert pins["storage[0].git"] == tip
    assert pins["storage[1].oss"].startswith("sha256:")
    assert "one" in again
    assert "two" not in again


async def test_a_missing_prefix(runtime: Rig) -> None:
    """The mount is named."""
    mount = Mount(mount_path="/m", source=ObjectSource(url="s3://models/none/"))
    run = await runtime.run(script="true", mounts=(mount,))

    report = await runtime.until(run, lambda seen: seen.phase == "failed")

    assert report.cause == "mount"
    assert "storage[0].oss" in report.message


async def test_scratch(runtime: Rig) -> None:
    """Empty, writable, outliving the program but not the replica."""
    mount = Mount(mount_path="/own", source=ScratchSource(), read_only=False)
    script = "ls /own | wc -l; touch /own/$(ls /own | wc -l); python -m http.server $PORT"
    run = await runtime.run(script=script, mounts=(mount,))
    await runtime.ready(run)
    directory = runtime.agent.fleet.replicas[run.replica].directory

    runtime.restart(run, 1)
    await runtime.until(run, lambda seen: seen.ready and seen.restart_number == 1)

    files = [path.name for path in next(directory.glob("empty-*")).iterdir()]
    assert sorted(files) == ["0", "1"]
    await runtime.stop(run)
    assert not directory.exists()


async def test_nfs_where_it_cannot_be_had(runtime: Rig) -> None:
    """A process has none; a kernel without NFS says so. (There is no NFS server here to try it with.)"""
    mount = Mount(mount_path="/data", source=NfsSource(server="127.0.0.1", path="/x"))
    run = await runtime.run(script="sleep 100", mounts=(mount,))

    report = await runtime.until(run, lambda seen: seen.phase == "failed")

    assert report.cause == "mount"


@pytest.mark.docker
async def test_what_an_adopted_container_uses_is_not_pruned(short_path: Path, tmp_path: Path) -> None:
    """It is in its labels: the next life of the agent has prepared nothing for it."""
    (tmp_path / "repos").mkdir()
    async with docker_runtime(short_path / "agent") as made:
        with git_server(tmp_path / "repos", "dulwich") as server:
            commit(server.make("code"), {"main.py": b"print('one')"})
            mount = Mount(mount_path="/code", source=GitSource(repo=server.address("code"), branch="main"))
            run = await made.run("python -m http.server $PORT", mounts=(mount,))
            await made.ready(run)

        assert made.agent.docker is not None
        (survivor,) = await made.agent.docker.survivors({run.replica})

        assert survivor.uses.held
        assert set(survivor.uses.held) == made.agent.fleet.in_use().sources
