"""A sound configuration → the content of its revision: what a replica of it runs."""

from __future__ import annotations

from typing import Any

from easel_contracts.spec import (
    GitSource,
    Image,
    ImageSource,
    Lifecycle,
    Mount,
    NfsSource,
    ObjectSource,
    Resources,
    RevisionSpec,
    ScratchSource,
    Security,
    Sidecar,
    Source,
    Traffic,
)
from easel_control.decide.check import Checker
from easel_control.decide.container_rules import limits_of
from easel_control.decide.keys import BY_PATH
from easel_control.decide.probes import probes_of
from easel_control.decide.quantities import mib_of_gib
from easel_control.decide.storage_rules import clean_path


def revision_of(config: dict[str, Any]) -> RevisionSpec:
    """The revision, as number 0 and without digests of its sources: the caller knows these."""
    container, *sidecars = config["containers"]
    prepare = container.get("prepare", {})
    startup, liveness, readiness = probes_of(Checker(), "containers[0]", container)
    shm_gib = get(config, "metadata.shm_size")
    return RevisionSpec(
        number=0,
        resources=Resources(
            cpu=float(get(config, "metadata.cpu")), memory_mib=get(config, "metadata.memory"),
            gpu=get(config, "metadata.gpu"),
        ),
        port=container.get("port", BY_PATH["containers[].port"].default),
        command=container.get("command"),
        script=container.get("script"),
        env_names=_env_names(container),
        python_requirements=tuple(prepare.get("pythonRequirements", ())),
        python_requirements_path=prepare.get("pythonRequirementsPath"),
        mounts=tuple(_mount(entry) for entry in config.get("storage", ())),
        startup=startup, liveness=liveness, readiness=readiness,
        lifecycle=_lifecycle(config),
        traffic=_traffic(config),
        image=_image(container) if "image" in container else None,
        args=tuple(container.get("args", ())),
        sidecars=tuple(_sidecar(sidecar) for sidecar in sidecars),
        shm_mib=None if shm_gib is None else mib_of_gib(shm_gib),
    )  # fmt: skip


def get(config: dict[str, Any], path: str) -> Any:
    """The value at a path without lists, or the table's default."""
    at: Any = config
    for part in path.split("."):
        if not isinstance(at, dict) or part not in at:
            return BY_PATH[path].default
        at = at[part]
    return at


def _lifecycle(config: dict[str, Any]) -> Lifecycle:
    return Lifecycle(
        termination_grace_s=float(get(config, "metadata.eas.termination_grace_period")),
        enable_sigterm=get(config, "metadata.rpc.enable_sigterm"),
    )


def _traffic(config: dict[str, Any]) -> Traffic:
    return Traffic(
        keepalive_ms=get(config, "metadata.rpc.keepalive"),
        retry=get(config, "traffic.retry"),
        retry_body_mib=get(config, "traffic.retry_body_mib"),
        hold_max_requests=get(config, "traffic.hold_max_requests"),
        grpc=get(config, "metadata.enable_grpc"),
    )


def _env_names(container: dict[str, Any]) -> tuple[str, ...]:
    return tuple(entry["name"] for entry in container.get("env", ()))


def _image(container: dict[str, Any]) -> Image:
    security = container.get("security", {})
    return Image(
        reference=container["image"],
        pull=container.get("pull_policy", BY_PATH["containers[].pull_policy"].default),
        pull_timeout_s=float(
            container.get("pull_timeout_seconds", BY_PATH["containers[].pull_timeout_seconds"].default)
        ),
        security=Security(
            read_only_root=security.get("read_only_root", False), user=security.get("user"),
            non_root=security.get("non_root", False),
        ),
    )  # fmt: skip


def _sidecar(container: dict[str, Any]) -> Sidecar:
    limits = limits_of(container)
    memory = limits.get("memory")
    return Sidecar(
        image=_image(container), command=container.get("command"), script=container.get("script"),
        args=tuple(container.get("args", ())), port=container.get("port"), env_names=_env_names(container),
        cpu=limits.get("cpu"), memory_mib=None if memory is None else int(memory),
    )  # fmt: skip


def _mount(entry: dict[str, Any]) -> Mount:
    path = clean_path(entry["mount_path"])
    if "local" in entry:
        local = entry["local"]
        digest = local.get("digest")
        return Mount(
            mount_path=path,
            host_path=None if digest else clean_path(local["path"]),
            code_digest=digest,
            read_only=local.get("readOnly", True),
        )
    read_only = entry.get("nfs", {}).get("readOnly", True) and "empty_dir" not in entry
    return Mount(mount_path=path, source=_source(entry), read_only=read_only)


def _source(entry: dict[str, Any]) -> Source:
    if git := entry.get("git"):
        commit = git.get("commit")
        return GitSource(repo=git["repo"], branch=git.get("branch"), commit=commit and commit.lower(),
                         login="password" in git)  # fmt: skip
    if image := entry.get("image"):
        return ImageSource(image=image["image"], path=clean_path(image.get("path", "/")))
    if oss := entry.get("oss"):
        return ObjectSource(url=oss["path"], endpoint=oss.get("endpoint"))
    if nfs := entry.get("nfs"):
        return NfsSource(server=nfs["server"], path=clean_path(nfs.get("path", "/")))
    scratch = entry["empty_dir"]
    size_gib = scratch.get("size_limit")
    return ScratchSource(
        medium="memory" if scratch.get("medium") == "memory" else "disk",
        size_mib=None if size_gib is None else mib_of_gib(size_gib),
    )
