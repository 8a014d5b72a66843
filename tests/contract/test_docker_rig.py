"""The rig that tests of containers stand on: what it says of an engine and a registry is so."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from tests.docker_private import PrivateEngine
from tests.docker_registry import Registry, running_registry
from tests.docker_rig import AGENT_LABEL, TEST_LABEL, docker, nothing_left

pytestmark = pytest.mark.docker


def test_small_image_runs(small_image: str) -> None:
    """Commands of BusyBox, found by name."""
    said = docker(
        "run", "--rm", "--network", "none", "--label", TEST_LABEL, small_image, "sh", "-c", "echo hello | wc -c"
    )

    assert said == "6"


def test_registry_wants_a_login(registry: Registry, small_image: str) -> None:
    """What was pushed is pulled by whoever gives the right login, and by its digest."""
    reference = registry.push(small_image, "team/small:1")
    by_digest = f"{registry.address}/team/small@{registry.digest('team/small:1')}"

    with pytest.raises(AssertionError, match="no basic auth credentials"):
        docker("pull", reference)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://{registry.address}/v2/team/small/manifests/1", timeout=10)
    assert docker("pull", "--quiet", by_digest, config=registry.client) == by_digest
    docker("rmi", by_digest)


def test_registry_ends_and_comes_back(small_image: str) -> None:
    """With what was pushed before."""
    with running_registry() as registry:
        registry.push(small_image, "team/small:1")
        before = registry.digest("team/small:1")
        registry.stop()
        with pytest.raises(OSError, match="refused"):
            registry.digest("team/small:1")
        registry.start()

        assert registry.digest("team/small:1") == before


def test_leftovers_are_seen(small_image: str) -> None:
    """A container, a network and a volume of an agent that outlive their test make it fail."""
    label = f"{AGENT_LABEL}=rig-test"
    for kind, make, remove in (
        ("container", ["create", "--label", label, small_image], ["rm"]),
        ("network", ["network", "create", "--label", label, "easel-rig-test"], ["network", "rm"]),
        ("volume", ["volume", "create", "--label", label], ["volume", "rm"]),
    ):
        made = ""
        try:
            with pytest.raises(AssertionError, match=f"left behind: .*{kind}"), nothing_left(within_s=0.5):
                made = docker(*make)
        finally:
            docker(*remove, made)
        with nothing_left(within_s=0.5):
            pass


@pytest.mark.timeout(240)
def test_private_engine_killed_and_started(own_engine: PrivateEngine, small_image: str) -> None:
    """Its containers are its own, and outlive its kill -9; the one that is started then ends them."""
    name = docker("run", "--detach", "--network", "none", small_image, "sleep", "600", url=own_engine.url)
    pid = docker("inspect", "--format", "{{.State.Pid}}", name, url=own_engine.url)

    own_engine.kill()

    with open(f"/proc/{pid}/comm") as file:
        assert file.read().strip() == "sleep"
    with pytest.raises(AssertionError, match="Cannot connect"):
        docker("version", url=own_engine.url)
    own_engine.start()
    assert docker("inspect", "--format", "{{.State.Running}}", name, url=own_engine.url) == "false"
    assert name not in docker("ps", "--all", "--quiet", "--no-trunc")
