"""deploy/compose/compose.yaml as text: every process is there, with its address, its walls and its health check."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from easel_kit.settings import load
from easel_migrate import setup
from easel_migrate.processes import PROCESSES, WITH_SCHEMA

COMPOSE = Path(__file__).parents[3] / "deploy" / "compose"
STACK: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
WITH_ENGINE: dict[str, Any] = yaml.safe_load((COMPOSE / "docker-runtime.yaml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = STACK["services"]
ONCE = ("setup", "migrate", "access-key")
LASTING = sorted(set(CONTAINERS) - set(ONCE))
AGENTS_RIGHTS = {
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN", "SYS_PTRACE",
}  # fmt: skip


def test_every_process_is_there() -> None:
    """With the stores, the gateway and the two steps before all."""
    assert set(CONTAINERS) == {*PROCESSES, *ONCE, "nats", "postgres", "envoy"}


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_walls(name: str) -> None:
    """Ordinary user, read-only root, no capability, no large ulimit; only the agent differs, as README.md says."""
    container = CONTAINERS[name]

    assert container["user"] == ("0:0" if name == "agent" else "10001:10001")
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert set(container.get("cap_add", [])) == (AGENTS_RIGHTS if name == "agent" else set())
    assert not {"privileged", "ulimits", "pid", "ipc", "devices", "userns_mode"} & set(container)
    assert "no-new-privileges:true" in container["security_opt"]
    assert not [option for option in container["security_opt"] if name != "agent" and "unconfined" in option]
    assert container["mem_limit"]
    assert container["pids_limit"]
    assert container["logging"]["options"]["max-size"]


def test_agents_rights_are_explained() -> None:
    """Each right of the agent's container has its line in README.md."""
    text = (COMPOSE / "README.md").read_text()

    assert {right for right in AGENTS_RIGHTS if f"`{right}`" not in text} == set()


@pytest.mark.parametrize("name", LASTING)
def test_lasting_containers(name: str) -> None:
    """Watched, started again, given time to end, and started after what they need."""
    container = CONTAINERS[name]

    assert container["healthcheck"]["test"][0] == "CMD"
    assert container["restart"] == "unless-stopped"
    assert container["stop_grace_period"]
    assert set(container["depends_on"]) == ({"setup"} if name in ("nats", "postgres") else {"migrate"})


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_volumes(name: str) -> None:
    """A process sees its own volume; only setup sees all; nothing of the machine is mounted."""
    mounted = [volume.split(":")[0] for volume in CONTAINERS[name]["volumes"]]

    assert set(mounted) <= set(STACK["volumes"])
    if name == "setup":
        assert set(mounted) == set(setup.VOLUMES)
    else:
        own = "migrate" if name == "access-key" else name
        assert set(mounted) - {"probe"} == {own}
        assert ("probe" in mounted) is (name in ("router", "envoy"))


@pytest.mark.parametrize("process", PROCESSES)
def test_addresses(process: str) -> None:
    """Each process listens on all of its container's addresses and finds the others by name."""
    environment = CONTAINERS[process]["environment"]

    for other in PROCESSES:
        wanted = "0.0.0.0:7000" if other == process else f"{other}:7000"
        assert environment[f"EASEL_{other.upper()}_ADDR"] == wanted
    assert environment["EASEL_HOST_ID"] == ""
    if process in WITH_SCHEMA:
        assert environment["EASEL_DB_DSN"] == f"postgresql://easel_{process}@postgres:5432/easel"
        assert "store" in CONTAINERS[process]["networks"]
    else:
        assert "EASEL_DB_DSN" not in environment
        assert "store" not in CONTAINERS[process]["networks"]


def test_setup_is_told_everything() -> None:
    """Its settings can be made of its environment and the image's."""
    load(setup.Settings, "setup", env={"EASEL_VOLUMES_DIR": "/volumes", **CONTAINERS["setup"]["environment"]})


def test_networks() -> None:
    """Only what has to is on a network that leads out; ports are published on this machine only, unless told."""
    out = {name for name, container in CONTAINERS.items() if "outside" in container.get("networks", ())}

    assert out == {"agent", "monitor", "envoy"}
    assert all(STACK["networks"][name]["internal"] for name in ("inside", "store"))
    assert {name for name, container in CONTAINERS.items() if "ports" in container} == {"envoy"}
    assert all(re.match(r"\$\{EASEL_BIND:-127\.0\.0\.1}:", port) for port in CONTAINERS["envoy"]["ports"])


def test_images_are_made() -> None:
    """deploy/images.py makes every image that is named."""
    text = (COMPOSE.parent / "images.py").read_text()

    for container in CONTAINERS.values():
        name = re.fullmatch(r"easel/([a-z]+):\$\{EASEL_VERSION:-latest}", container["image"])
        assert name is not None
        assert f'"{name[1]}"' in text


def test_seccomp_profile() -> None:
    """What is refused stays refused: the kernel's dangerous calls, ptrace, new user namespaces."""
    profile = json.loads((COMPOSE / "agent-seccomp.json").read_text())
    refused = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}

    assert {rule["action"] for rule in profile["syscalls"]} == {"SCMP_ACT_ERRNO"}
    assert {"bpf", "kexec_load", "init_module", "ptrace", "open_by_handle_at", "io_uring_setup", "clone3"} <= refused
    (new_users,) = [rule for rule in profile["syscalls"] if "args" in rule]
    assert set(new_users["names"]) == {"unshare", "clone"}
    assert new_users["args"][0]["value"] == 0x10000000


def test_only_the_agent_sees_the_engine() -> None:
    """The socket lies where its replicas cannot look; its data has one name for the engine and for itself."""
    agent = WITH_ENGINE["services"]["agent"]
    socket, home = agent["volumes"]
    hidden = CONTAINERS["agent"]["environment"]["EASEL_AGENT_HIDE"].split(":")

    assert [name for name, container in WITH_ENGINE["services"].items() if "volumes" in container] == ["agent"]
    assert str(Path(socket.rpartition(":")[2]).parent) in hidden
    assert agent["environment"]["EASEL_AGENT_DOCKER"] == "unix://" + socket.rpartition(":")[2]
    assert home == "{0}:{0}".format(agent["environment"]["EASEL_HOME"])
    assert set(WITH_ENGINE["services"]) <= set(CONTAINERS)


def test_network_of_containers() -> None:
    """Gateway and agent are on it, nobody else; the agent is told its name; the engine's own addresses are a part."""
    network = WITH_ENGINE["networks"]["replicas"]
    (config,) = network["ipam"]["config"]
    subnet, others = (ip_network(re.sub(r"\$\{\w+:-(.*)}", r"\1", config[key])) for key in ("subnet", "ip_range"))

    assert {name for name, container in WITH_ENGINE["services"].items() if "replicas" in container["networks"]} == {
        "agent", "envoy",
    }  # fmt: skip
    assert WITH_ENGINE["services"]["agent"]["environment"]["EASEL_AGENT_DOCKER_NETWORK"] == network["name"]
    assert others != subnet
    assert ip_address(others[0]) in subnet
