"""Images from a real registry that wants a login: pulled, pinned, refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from easel_contracts.runtime import ReplicaReport
from easel_contracts.spec import Image, ImageSource, Mount, RunSpec, Sidecar
from tests.contract.agent.rig import DockerRig
from tests.docker_registry import Registry
from tests.docker_rig import docker

pytestmark = pytest.mark.docker

MAIN = "containers[0].image"


@pytest.fixture
def pushed(registry: Registry, small_image: str, tmp_path: Path) -> Iterator[str]:
    """`team/app:1` in the registry, of a content of its own; the engine does not have it."""
    name = "team/app:1"
    reference = push(registry, small_image, tmp_path, name, "one")
    yield reference
    forget(registry)


def push(registry: Registry, base: str, directory: Path, name: str, text: str) -> str:
    """An image that prints `text`."""
    (directory / "Dockerfile").write_text(
        f'FROM {base}\nRUN echo {text} > /text\nCMD ["sh", "-c", "cat /text; exec httpd -f -p $PORT"]\n'
    )
    docker("build", "--quiet", "--no-cache", "--label", "easel.test=1", "--tag", "easel-test/pushed:1", str(directory))
    try:
        return registry.push("easel-test/pushed:1", name)
    finally:
        docker("rmi", "--force", "easel-test/pushed:1")


def forget(registry: Registry) -> None:
    """The engine has nothing of the registry's any more."""
    for listed in docker("images", "--digests", "--format", "{{.Repository}}@{{.Digest}}").split():
        if listed.startswith(registry.address):
            docker("rmi", "--force", listed)


async def failed(runtime: DockerRig, run: RunSpec) -> ReplicaReport:
    """Why it cannot be."""
    report = await runtime.until(run, lambda seen: seen.phase == "failed")
    assert report.cause == "image"
    return report


def of(runtime: DockerRig, reference: str, *, pins: dict[str, str] | None = None, **options: object) -> RunSpec:
    """A replica that runs an image as it is."""
    run = runtime.spec(image=Image(reference=reference, **options))  # type: ignore[arg-type]
    return replace(run, pins=pins or {})


async def test_pulled_with_the_login_and_pinned(runtime: DockerRig, registry: Registry, pushed: str) -> None:
    """Its own entry point runs; the digest is the registry's; progress is in the log."""
    runtime.control.registry_login = registry.login
    run = await runtime.start(of(runtime, pushed))

    report = await runtime.ready(run)

    assert report.pins == {MAIN: registry.digest("team/app:1")}
    assert report.runtime == "docker"
    output = await runtime.printed(run, "one")
    assert f"pulling {pushed}" in output
    assert f"pulling {pushed}" in {seen.message for seen in runtime.seen[run.replica] if seen.phase == "fetching"}
    assert report.message == ""
    assert registry.login not in output


@pytest.mark.parametrize(("login", "words"), [("", "wants a login"), ("wrong", "refused the login")])
async def test_without_the_right_login(
    runtime: DockerRig, registry: Registry, pushed: str, login: str, words: str
) -> None:
    """dockerAuth is named."""
    runtime.control.registry_login = registry.wrong_login if login else ""

    report = await failed(runtime, await runtime.start(of(runtime, pushed)))

    assert words in report.message
    assert "dockerAuth" in report.message


async def test_no_such_tag(runtime: DockerRig, registry: Registry, pushed: str) -> None:
    """The registry answers that."""
    runtime.control.registry_login = registry.login

    report = await failed(runtime, await runtime.start(of(runtime, f"{registry.address}/team/app:none")))

    assert "no such image or tag" in report.message


async def test_the_registry_is_gone(runtime: DockerRig, registry: Registry, pushed: str) -> None:
    """Told as such, not as a missing image."""
    registry.stop()
    try:
        report = await failed(runtime, await runtime.start(of(runtime, pushed)))
    finally:
        registry.start()

    assert "does not answer" in report.message


async def test_a_pull_that_takes_too_long(runtime: DockerRig, registry: Registry, pushed: str) -> None:
    """Ended at its limit, which is named."""
    runtime.control.registry_login = registry.login
    with registry.silent():
        run = await runtime.start(of(runtime, pushed, pull_timeout_s=1.0))
        report = await failed(runtime, run)

    assert "within 1 s" in report.message
    assert "pull_timeout_seconds" in report.message


async def test_never_pull(runtime: DockerRig, registry: Registry, pushed: str) -> None:
    """Nobody is asked."""
    runtime.control.registry_login = registry.login

    report = await failed(runtime, await runtime.start(of(runtime, pushed, pull="Never")))

    assert "pull_policy is Never" in report.message


class TestAMovedTag:
    """A tag names something else by and by."""

    async def test_a_pinned_replica_runs_what_the_first_found(
        self, runtime: DockerRig, registry: Registry, pushed: str, small_image: str, tmp_path: Path
    ) -> None:
        """By digest, also where the engine has to pull it anew."""
        runtime.control.registry_login = registry.login
        pin = registry.digest("team/app:1")
        push(registry, small_image, tmp_path, "team/app:1", "two")
        assert registry.digest("team/app:1") != pin

        run = await runtime.start(of(runtime, pushed, pins={MAIN: pin}))

        assert (await runtime.ready(run)).pins == {MAIN: pin}
        assert "one" in await runtime.printed(run, "one")

    async def test_policies(
        self, runtime: DockerRig, registry: Registry, pushed: str, small_image: str, tmp_path: Path
    ) -> None:
        """IfNotPresent takes what the node has, Always asks the registry."""
        runtime.control.registry_login = registry.login
        first = registry.digest("team/app:1")
        await runtime.ready(await runtime.start(of(runtime, pushed)))
        push(registry, small_image, tmp_path, "team/app:1", "two")
        docker("tag", f"{registry.address}/team/app@{first}", pushed)  # to push the other took it away

        kept = await runtime.ready(await runtime.start(of(runtime, pushed)))
        asked = await runtime.ready(await runtime.start(of(runtime, pushed, pull="Always")))

        assert kept.pins == {MAIN: first}
        assert asked.pins == {MAIN: registry.digest("team/app:1")} != kept.pins


async def test_an_image_of_no_registry_is_the_nodes_own(runtime: DockerRig) -> None:
    """Pinned by its id; another node says what is to be done."""
    run = await runtime.run(script="exec httpd -f -p $PORT")
    pin = (await runtime.ready(run)).pins[MAIN]
    assert pin == "local:" + docker("inspect", "--format", "{{.Id}}", runtime.image.reference)

    report = await failed(runtime, await runtime.start(of(runtime, "x:1", pins={MAIN: "local:sha256:" + "0" * 64})))

    assert "built on another node" in report.message


async def test_a_sidecars_image_is_pinned_too(runtime: DockerRig, registry: Registry, pushed: str) -> None:
    """By its own place in the service.json."""
    runtime.control.registry_login = registry.login
    side = Sidecar(image=Image(reference=pushed), port=9000)

    report = await runtime.ready(await runtime.run(script="exec httpd -f -p $PORT", sidecars=(side,)))

    assert report.pins["containers[1].image"] == registry.digest("team/app:1")


async def test_files_of_an_image(runtime: DockerRig, registry: Registry, pushed: str) -> None:
    """Copied out, read-only, without running anything of it."""
    runtime.control.registry_login = registry.login
    mounts = (Mount(mount_path="/mnt/etc", source=ImageSource(image=pushed, path="/etc")),
              Mount(mount_path="/mnt/text", source=ImageSource(image=pushed, path="/text")))  # fmt: skip
    script = "cat /mnt/etc/passwd /mnt/text; touch /mnt/etc/x || echo refused; exec sleep 300"

    run = await runtime.run(script=script, mounts=mounts)
    output = await runtime.printed(run, "refused")

    assert "root:x:0" in output
    assert "one" in output
    pins = runtime.agent.fleet.replicas[run.replica].report.pins
    assert pins["storage[0].image"] == pins["storage[1].image"] == registry.digest("team/app:1")
