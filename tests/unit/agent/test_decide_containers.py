"""What an engine is asked for, and what its answers mean: pure decisions about containers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from easel_agent.decide.addresses import candidates
from easel_agent.decide.containers import PACKAGES, Place, container, mounts, parts, refusal, shm
from easel_agent.decide.image_errors import explain_container, explain_init, explain_pull
from easel_agent.decide.references import LOCAL, parse, pin_of, pinned
from easel_contracts.spec import (
    Image,
    Mount,
    NfsSource,
    Resources,
    RevisionSpec,
    RunSpec,
    ScratchSource,
    Security,
    Sidecar,
)  # fmt: skip

DIGEST = "sha256:" + "a" * 64
PLACE = Place(labels={"easel.agent": "g"}, network="n", ip="10.1.0.5", node="local", processes=100, init=True,
              log_bytes=1000, cpus=2.0)  # fmt: skip


def run(**revision: Any) -> RunSpec:
    """A replica of an image."""
    defaults: dict[str, Any] = {"resources": Resources(cpu=1, memory_mib=100), "image": Image(reference="team/app:1")}
    made = RevisionSpec(number=3, port=8000, **(defaults | revision))
    return RunSpec(workspace="default", service="svc", replica="svc-3-abcde", revision=made)


def bodies(of: RunSpec, config: dict[str, Any] | None = None, env: dict[str, str] | None = None,
           sidecar_env: tuple[dict[str, str], ...] = (), place: Place = PLACE,
           sources: dict[str, str] | None = None) -> list[dict[str, Any]]:  # fmt: skip
    """What is asked for, one body per container."""
    images = [("sha256:1", config or {})] * (1 + len(of.revision.sidecars))
    found = mounts(of, sources or {}, {"easel.agent": "g"}, place.packages)
    return [
        container(of, part, place, found, main_id="MAIN").body for part in parts(of, images, env or {}, sidecar_env)
    ]


class TestContainer:
    """Bodies of `POST /containers/create`."""

    def test_an_image_as_it_is(self) -> None:
        """Neither entry point nor arguments are replaced; the address is asked for; nothing runs with more rights."""
        (body,) = bodies(run())

        assert not {"Entrypoint", "Cmd", "User", "WorkingDir"} & body.keys()
        assert body["Image"] == "sha256:1"
        assert body["NetworkingConfig"]["EndpointsConfig"]["n"]["IPAMConfig"]["IPv4Address"] == "10.1.0.5"
        host = body["HostConfig"]
        assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
            100 << 20,
            100 << 20,
            10**9,
            100,
        )
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["RestartPolicy"] == {"Name": "no"}

    def test_a_command(self) -> None:
        """Split like a shell would, with the replica's and the image's variables; `args` follow."""
        (body,) = bodies(run(command="serve --port $PORT --at '$DIR x'", args=("--v",)), {"Env": ["DIR=/srv"]})

        assert body["Entrypoint"] == ["serve", "--port", "8000", "--at", "/srv x"]
        assert body["Cmd"] == ["--v"]

    def test_arguments_alone_are_for_the_images_entry_point(self) -> None:
        """Its own default arguments are replaced."""
        (body,) = bodies(run(args=("--model", "m")))

        assert body["Cmd"] == ["--model", "m"]
        assert "Entrypoint" not in body

    def test_a_script(self) -> None:
        """In the image's shell."""
        (body,) = bodies(run(script="a\nb"))

        assert (body["Entrypoint"], body["Cmd"]) == (["/bin/sh", "-c", "a\nb"], [])

    def test_the_users_values_win_but_not_over_who_it_is(self) -> None:
        """PORT and the names are the platform's."""
        (body,) = bodies(run(), env={"PORT": "1", "HOST": "::", "MINE": "x"})

        assert {"PORT=8000", "HOST=::", "MINE=x", "POD_IP=10.1.0.5", "EASEL_REVISION=3"} <= set(body["Env"])

    def test_not_more_cores_than_there_are(self) -> None:
        """An engine refuses such a limit."""
        (body,) = bodies(run(resources=Resources(cpu=8, memory_mib=100)))

        assert body["HostConfig"]["NanoCpus"] == 2 * 10**9

    def test_sidecars_join_the_main_one(self) -> None:
        """Its network and shared memory; limits of their own where they have some."""
        side = Sidecar(image=Image(reference="x"), port=9000, memory_mib=50)
        main, other = bodies(run(sidecars=(side,), shm_mib=99), sidecar_env=({"A": "1"},))

        assert (main["HostConfig"]["IpcMode"], main["HostConfig"]["ShmSize"]) == ("shareable", 99 << 20)
        assert other["HostConfig"]["NetworkMode"] == other["HostConfig"]["IpcMode"] == "container:MAIN"
        assert other["HostConfig"]["Memory"] == 50 << 20
        assert {"A=1", "PORT=9000"} <= set(other["Env"])
        assert "NetworkingConfig" not in other
        assert "ShmSize" not in other["HostConfig"]

    def test_the_working_directory(self) -> None:
        """The image's own; where it has none, the first mount."""
        of, sources = run(mounts=(Mount(mount_path="/code", code_digest=DIGEST),)), {"/code": "/node/code"}

        assert bodies(of, sources=sources)[0]["WorkingDir"] == "/code"
        assert "WorkingDir" not in bodies(of, {"WorkingDir": "/app"}, sources=sources)[0]

    def test_a_read_only_root_has_a_tmp(self) -> None:
        """Unless something is mounted there."""
        image = Image(reference="x", security=Security(read_only_root=True))

        assert bodies(run(image=image))[0]["HostConfig"]["Tmpfs"] == {"/tmp": "mode=1777"}

    def test_installed_packages(self) -> None:
        """Before the image's own paths, read-only, in the main container."""
        (body,) = bodies(run(), {"Env": ["PATH=/x", "PYTHONPATH=/y"]}, place=replace(PLACE, packages="/node/p"))

        assert {f"PATH={PACKAGES}/bin:/x", f"PYTHONPATH={PACKAGES}:/y"} <= set(body["Env"])
        assert body["HostConfig"]["Mounts"] == [
            {"Type": "bind", "Source": "/node/p", "Target": PACKAGES, "ReadOnly": True}
        ]

    def test_gpus(self) -> None:
        """By device, so that no other replica has the same."""
        (body,) = bodies(run(), place=replace(PLACE, gpus=("1",)))

        assert body["HostConfig"]["DeviceRequests"] == [{"DeviceIDs": ["1"], "Capabilities": [["gpu"]]}]


class TestMounts:
    """What an engine makes itself."""

    def test_scratch_memory_at_dev_shm(self) -> None:
        """EAS's way to say shm_size; without a size, the replica's memory."""
        sized = Mount(mount_path="/dev/shm", source=ScratchSource(medium="memory", size_mib=20), read_only=False)

        assert shm(run(mounts=(sized,))) == 20
        assert shm(run(mounts=(replace(sized, source=ScratchSource(medium="memory")),))) == 100
        assert mounts(run(mounts=(sized,)), {}, {}, None) == ()

    def test_nfs(self) -> None:
        """A volume of the engine, read-only unless asked for."""
        mount = Mount(mount_path="/data", source=NfsSource(server="10.0.0.9", path="/models"))
        (made,) = mounts(run(mounts=(mount,)), {}, {"easel.agent": "g"}, None)

        assert made["Source"] == "svc-3-abcde-0"
        assert made["ReadOnly"] is True
        assert made["VolumeOptions"]["DriverConfig"]["Options"] == {
            "type": "nfs", "o": "addr=10.0.0.9,ro", "device": ":/models"
        }  # fmt: skip


@pytest.mark.parametrize(("own", "user", "refused"), [
    ("", None, True), ("root", None, True), ("0:0", None, True), ("1000", None, False), ("", "1000:1", False),
    ("app", "0", True), ("app", None, False),
])  # fmt: skip
def test_non_root(own: str, user: str | None, refused: bool) -> None:
    """The image's user counts where none is given."""
    of = run(image=Image(reference="x", security=Security(non_root=True, user=user)))
    (part,) = parts(of, [("sha256:1", {"User": own})], {}, ())

    assert (refusal(part) is not None) == refused


@pytest.mark.parametrize(("text", "host", "repository", "tag"), [
    ("app", "", "app", "latest"),
    ("team/app:1", "", "team/app", "1"),
    ("localhost/app", "localhost", "localhost/app", "latest"),
    ("127.0.0.1:5000/app:2", "127.0.0.1:5000", "127.0.0.1:5000/app", "2"),
    ("registry.example.com/a/b/c", "registry.example.com", "registry.example.com/a/b/c", "latest"),
    (f"registry.example.com:1/a@{DIGEST}", "registry.example.com:1", "registry.example.com:1/a", ""),
])  # fmt: skip
def test_references(text: str, host: str, repository: str, tag: str) -> None:
    """As the distribution project reads them."""
    found = parse(text)

    assert (found.host, found.repository, found.tag) == (host, repository, tag)


def test_pins() -> None:
    """The registry's digest where the image came from it; its id here where it came from nowhere."""
    other = "sha256:" + "b" * 64
    assert pin_of("r.example/app:1", "sha256:id", [f"x/app@{other}", f"r.example/app@{DIGEST}"]) == DIGEST
    assert pin_of("docker.io/library/app:1", "sha256:id", [f"app@{DIGEST}"]) == DIGEST
    assert pin_of("app:1", "sha256:id", []) == LOCAL + "sha256:id"
    assert pin_of(f"app@{DIGEST}", "sha256:id", []) == DIGEST
    assert pinned("r.example:1/app:1", DIGEST) == f"r.example:1/app@{DIGEST}"
    assert pinned("app:1", LOCAL + "sha256:id") == "sha256:id"


@pytest.mark.parametrize(("said", "login", "words"), [
    ("Get \"http://x/v2/\": dial tcp: lookup x: no such host", False, "cannot be resolved"),
    ("no basic auth credentials", False, "dockerAuth"),
    ("unauthorized: authentication required", True, "refused the login"),
    ("manifest for x:1 not found: manifest unknown", False, "no such image or tag"),
    ("write /var/lib/docker/x: no space left on device", True, "disk is full"),
    ("dial tcp 127.0.0.1:5000: connect: connection refused", False, "does not answer"),
    ("http: server gave HTTP response to HTTPS client", False, "insecure-registries"),
    ("something new", False, "something new"),
])  # fmt: skip
def test_why_an_image_cannot_be_pulled(said: str, login: bool, words: str) -> None:
    """In words, and the engine's own beside them."""
    refused = explain_pull("r.example/x:1", said, with_login=login)

    assert refused.cause == "image"
    assert words in refused.message
    assert said[:20] in refused.message


@pytest.mark.parametrize(("step", "status", "said", "cause", "words"), [
    ("start", 400, 'exec: "nope": executable file not found in $PATH: unknown', "command", "'nope'"),
    ("start", 400, 'exec: "/bin/sh": stat /bin/sh: no such file or directory', "command", "no shell"),
    ("start", 400, 'exec: "nope": permission denied', "command", "may not be executed"),
    ("start", 400, "exec user process caused: exec format error", "command", "processor"),
    ("create", 404, "No such image: sha256:1", "image", "removed"),
    ("start", 500, 'could not select device driver "" with capabilities: [[gpu]]', "internal", "toolkit"),
    ("create", 500, "write /x: no space left on device", "internal", "disk is full"),
    ("create", 400, "invalid mount config: bind source path does not exist: /x", "mount", "/x"),
    ("start", 500, "a new thing", "internal", "could not be started (a new thing)"),
    ("create", 500, "a new thing", "internal", "could not be created (a new thing)"),
])  # fmt: skip
def test_why_a_container_cannot_be(
    step: Literal["create", "start"], status: int, said: str, cause: str, words: str
) -> None:
    """Cause and sentence."""
    name = "/bin/sh" if "/bin/sh" in said else "nope"
    refused = explain_container(step, status, said, (name,))

    assert refused.cause == cause
    assert words in refused.message


def test_what_the_init_process_says() -> None:
    """It starts even where the program cannot be executed."""
    line = "[FATAL tini (7)] exec nope failed: No such file or directory"

    refused = explain_init(("x", line), ("nope",))
    assert refused is not None
    assert refused.cause == "command"
    assert explain_init(("an ordinary line",), ("nope",)) is None


@given(st.integers(24, 30), st.data())
def test_addresses_go_round(length: int, data: st.DataObject) -> None:
    """Whatever is held: a free one of the subnet, never the engine's, the one given longest ago."""
    subnet = IPv4Network(f"10.9.0.0/{length}")
    usable = set(subnet.hosts()) - {IPv4Address("10.9.0.1")}
    held = data.draw(st.sets(st.sampled_from(sorted(usable)), max_size=len(usable)))
    after = data.draw(st.none() | st.sampled_from(sorted(usable)))

    found = list(candidates(subnet, IPv4Network("10.9.0.1"), after, held))

    assert set(found) == usable - held
    assert len(found) == len(set(found))
    if after is not None:
        later = [address for address in found if address > after]
        assert found[: len(later)] == later


def test_the_engines_own_range_is_left_to_it() -> None:
    """Containers without a fixed address get theirs from it."""
    found = set(candidates(IPv4Network("10.9.0.0/28"), IPv4Network("10.9.0.8/29"), None, ()))

    assert found == {IPv4Address(f"10.9.0.{number}") for number in range(1, 8)}
