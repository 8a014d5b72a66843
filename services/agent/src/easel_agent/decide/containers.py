"""Decides what a Docker engine is asked to make of a replica: one body of `POST /containers/create` per container.

The main container owns the network, /dev/shm and the replica's address; sidecars join it. Rights are those that
ordinary server images need to change to a user of their own, and no more.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from easel_agent.decide.environment import SYSTEM_PATH, expand, identity
from easel_agent.model import Refusal
from easel_contracts.spec import Image, Mount, NfsSource, RunSpec, ScratchSource

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
SHELL = "/bin/sh"
SHM = "/dev/shm"
PACKAGES = "/opt/easel/python"
"""Where Python requirements are seen in a container."""
MIB = 1024 * 1024


class Place(Struct, frozen=True, kw_only=True):
    """What the node decides about a replica's containers."""

    labels: dict[str, str]
    network: str
    ip: str
    node: str
    processes: int
    init: bool
    """The engine can put an init process before the program, which hands signals on and reaps."""
    log_bytes: int
    cpus: float
    """Of the machine: an engine refuses a limit above."""
    parent_group: str = ""
    gpus: tuple[str, ...] = ()
    packages: str | None = None
    """Directory with the installed Python requirements."""
    inherited: dict[str, str] = {}


class Part(Struct, frozen=True, kw_only=True):
    """One container of a replica, from whatever place in the service.json it comes."""

    index: int
    """0: the main one."""
    image: Image
    image_id: str
    image_config: dict[str, Any]
    command: str | None
    script: str | None
    args: tuple[str, ...]
    port: int | None
    env: dict[str, str]
    cpu: float
    memory_mib: int


class Made(Struct, frozen=True, kw_only=True):
    """A container to be created."""

    name: str
    words: tuple[str, ...]
    """What it executes, for messages; empty: the image's own."""
    body: dict[str, Any]


def parts(run: RunSpec, images: Sequence[tuple[str, dict[str, Any]]], env: dict[str, str],
          sidecar_env: Sequence[dict[str, str]]) -> tuple[Part, ...]:  # fmt: skip
    """The containers of a replica; `images` (id, config) in their order."""
    revision = run.revision
    assert revision.image is not None
    main = Part(
        index=0, image=revision.image, image_id=images[0][0], image_config=images[0][1], command=revision.command,
        script=revision.script, args=revision.args, port=revision.port, env=env, cpu=revision.resources.cpu,
        memory_mib=revision.resources.memory_mib,
    )  # fmt: skip
    return main, *(
        Part(
            index=number, image=each.image, image_id=images[number][0], image_config=images[number][1],
            command=each.command, script=each.script, args=each.args, port=each.port,
            env=sidecar_env[number - 1] if number <= len(sidecar_env) else {},
            cpu=each.cpu or revision.resources.cpu, memory_mib=each.memory_mib or revision.resources.memory_mib,
        )
        for number, each in enumerate(revision.sidecars, 1)
    )  # fmt: skip


def refusal(part: Part) -> Refusal | None:
    """Why a container may not be made of this image."""
    security, own = part.image.security, str(part.image_config.get("User") or "")
    user = (security.user or own).partition(":")[0]
    if security.non_root and user in ("", "0", "root"):
        message = (f"containers[{part.index}]: the image {part.image.reference} would run as root, and "
                   "security.non_root is true. Give security.user, or an image with a user of its own.")  # fmt: skip
        return Refusal(cause="image", message=message)
    if part.script is None and part.command is not None:
        try:
            shlex.split(part.command)
        except ValueError as error:
            return Refusal(cause="command", message=f"The command cannot be split into words: {error}.")
    return None


def environment(run: RunSpec, part: Part, place: Place) -> dict[str, str]:
    """What is added to the image's own environment. The user's values win, except over who and where the replica is."""
    image = dict(entry.partition("=")[::2] for entry in part.image_config.get("Env") or ())
    env = {"HOST": "0.0.0.0", "PYTHONUNBUFFERED": "1", **place.inherited}
    if place.packages and part.index == 0:
        env["PATH"] = f"{PACKAGES}/bin:{image.get('PATH', SYSTEM_PATH)}"
        env["PYTHONPATH"] = ":".join(filter(None, (PACKAGES, image.get("PYTHONPATH"))))
    env |= part.env
    env |= identity(run, ip=place.ip, node=place.node)
    return env | ({"PORT": str(part.port)} if part.port is not None else {})


def container(run: RunSpec, part: Part, place: Place, mounts: Sequence[dict[str, Any]], *, main_id: str) -> Made:
    """The body for one container; `main_id` is that of the main one, for a sidecar."""
    env = environment(run, part, place)
    image_env = dict(entry.partition("=")[::2] for entry in part.image_config.get("Env") or ())
    words = _words(part, {**image_env, **env})
    body: dict[str, Any] = {
        "Image": part.image_id,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Labels": {**place.labels, "easel.container": str(part.index)},
        "HostConfig": _host_config(run, part, place, mounts, main_id),
    }
    if part.index == 0:
        body["Hostname"] = run.replica[:63].rstrip("-")
        body["NetworkingConfig"] = {"EndpointsConfig": {place.network: {"IPAMConfig": {"IPv4Address": place.ip}}}}
    if part.image.security.user:
        body["User"] = part.image.security.user
    if words:
        body["Entrypoint"], body["Cmd"] = words, [] if part.script is not None else list(part.args)
    elif part.args:
        body["Cmd"] = list(part.args)
    first = next((str(mount["Target"]) for mount in mounts if mount["Target"] != PACKAGES), None)
    if first and not part.image_config.get("WorkingDir"):
        body["WorkingDir"] = first
    suffix = "" if part.index == 0 else f"-sidecar{part.index}"
    return Made(name=f"{run.replica}{suffix}", words=tuple(words), body=body)


def _words(part: Part, env: Mapping[str, str]) -> list[str]:
    if part.script is not None:
        return [SHELL, "-c", part.script]
    return [expand(word, env) for word in shlex.split(part.command or "")]


def _host_config(
    run: RunSpec, part: Part, place: Place, mounts: Sequence[dict[str, Any]], main_id: str
) -> dict[str, Any]:
    memory = part.memory_mib * MIB
    config: dict[str, Any] = {
        "NetworkMode": place.network, "Memory": memory, "MemorySwap": memory,
        "NanoCpus": round(min(part.cpu, place.cpus) * 1e9), "PidsLimit": place.processes, "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES), "SecurityOpt": ["no-new-privileges:true"], "Mounts": list(mounts),
        "RestartPolicy": {"Name": "no"}, "Init": place.init,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": str(place.log_bytes), "max-file": "2"}},
    }  # fmt: skip
    if part.image.security.read_only_root:
        config["ReadonlyRootfs"] = True
        config["Tmpfs"] = {"/tmp": "mode=1777"} if not any(mount["Target"] == "/tmp" for mount in mounts) else {}
    if place.parent_group:
        config["CgroupParent"] = place.parent_group
    if part.index:
        config |= {"NetworkMode": f"container:{main_id}", "IpcMode": f"container:{main_id}"}
        return config
    if run.revision.sidecars:
        config["IpcMode"] = "shareable"
    shm_mib = shm(run)
    if shm_mib is not None:
        config["ShmSize"] = shm_mib * MIB
    if place.gpus:
        config["DeviceRequests"] = [{"DeviceIDs": list(place.gpus), "Capabilities": [["gpu"]]}]
    return config


def shm(run: RunSpec) -> int | None:
    """Size of /dev/shm in MiB; None: the engine's default."""
    for mount in run.revision.mounts:
        if mount.mount_path == SHM and isinstance(mount.source, ScratchSource):
            return mount.source.size_mib or run.revision.resources.memory_mib
    return run.revision.shm_mib


def volumes_of(run: RunSpec) -> list[int]:
    """Numbers of the mounts that are volumes of the engine."""
    return [number for number, mount in enumerate(run.revision.mounts) if _is_volume(mount)]


def _is_volume(mount: Mount) -> bool:
    source = mount.source
    if isinstance(source, ScratchSource):
        return source.medium == "memory" and mount.mount_path != SHM
    return isinstance(source, NfsSource)


def mounts(run: RunSpec, sources: Mapping[str, str], labels: Mapping[str, str],
           packages: str | None) -> tuple[dict[str, Any], ...]:  # fmt: skip
    """Mounts of every container of a replica. `sources`: mount_path → path on the node, of what the agent has
    fetched."""
    made = [
        _mount(mount, f"{run.replica}-{number}", sources, labels)
        for number, mount in enumerate(run.revision.mounts)
        if not (mount.mount_path == SHM and isinstance(mount.source, ScratchSource))
    ]
    if packages:
        made.append({"Type": "bind", "Source": packages, "Target": PACKAGES, "ReadOnly": True})
    return tuple(made)


def _mount(mount: Mount, name: str, sources: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, Any]:
    source = mount.source
    if isinstance(source, NfsSource):
        rights = "ro" if mount.read_only else "rw"
        options = {"type": "nfs", "o": f"addr={source.server},{rights}", "device": f":{source.path}"}
        return _volume(mount, name, options, labels)
    if isinstance(source, ScratchSource) and source.medium == "memory":
        size = f",size={source.size_mib}m" if source.size_mib else ""
        return _volume(mount, name, {"type": "tmpfs", "device": "tmpfs", "o": f"mode=1777{size}"}, labels)
    return {"Type": "bind", "Source": sources[mount.mount_path], "Target": mount.mount_path,
            "ReadOnly": mount.read_only}  # fmt: skip


def _volume(mount: Mount, name: str, options: dict[str, str], labels: Mapping[str, str]) -> dict[str, Any]:
    driver = {"Name": "local", "Options": options}
    return {"Type": "volume", "Source": name, "Target": mount.mount_path, "ReadOnly": mount.read_only,
            "VolumeOptions": {"NoCopy": True, "Labels": dict(labels), "DriverConfig": driver}}  # fmt: skip
