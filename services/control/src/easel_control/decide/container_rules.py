"""Rules that join the keys of containers: images, commands, sidecars, environments, limits. See rules.py."""

from __future__ import annotations

import shlex
from typing import Any

from easel_control.decide import document
from easel_control.decide.check import Checker
from easel_control.decide.images import image_problem
from easel_control.decide.keys import BY_PATH
from easel_control.decide.probes import NAMES as PROBES
from easel_control.decide.probes import probes_of
from easel_control.decide.quantities import cores_of, mib_of
from easel_control.decide.storage_rules import clean_path, is_inside

Container = dict[str, Any]

OF_IMAGES = {
    "args": "write the words into `command`",
    "resources": "`metadata.cpu` and `metadata.memory` are the limits of a replica",
    "security": "processes run with a user and mounts of their own where the node can do it",
}
"""Keys of a container that need an image, for now → what to do instead."""


def check_containers(to: Checker, config: dict[str, Any], wrong: frozenset[str]) -> bool:
    """All rules of containers; errors go to `to`. Returns whether the deployment is one of images."""
    containers: list[Container | None] = config.get("containers") or []
    images = _check_images(to, containers, wrong)
    for i, container in enumerate(containers):
        if container is None:
            continue
        at = f"containers[{i}]"
        _check_command(to, at, container, wrong, image=images)
        _check_env(to, at, container, wrong)
        if not images:
            _check_image_keys(to, at, container)
            continue
        _check_user(to, at, container)
        _check_limits(to, at, container)
        if i == 0:
            _check_main_limits(to, container, config, wrong)
        else:
            _check_sidecar(to, at, container, config, wrong)
    if containers and containers[0] is not None:
        _check_prepare(to, containers[0], config, image=images)
        probes_of(to, "containers[0]", containers[0], wrong)
    if not images:
        _check_metadata_without_image(to, config)
    _check_ports(to, containers)
    return images


def _check_images(to: Checker, containers: list[Container | None], wrong: frozenset[str]) -> bool:
    """Every container has a sound image, or none has one. Returns whether the deployment is one of images."""
    given = [i for i, c in enumerate(containers) if (c and "image" in c) or f"containers[{i}].image" in wrong]
    for i in given:
        container = containers[i]
        problem = image_problem(container["image"]) if container and "image" in container else None
        if problem:
            to.add(f"containers[{i}].image", "WRONG_VALUE", *problem)
    if not given and len(containers) > 1:
        to.add("containers", "NOT_SUPPORTED_YET",
               f"sidecars need images: {len(containers)} containers are given, and none has an `image`",
               "without images, one container is supported")  # fmt: skip
    for i, container in enumerate(containers):
        if given and container is not None and i not in given:
            to.add(f"containers[{i}].image", "MISSING", f"no image is given, and `containers[{given[0]}]` has one",
                   "either every container has one, or there is one container without")  # fmt: skip
    return bool(given)


def _check_command(to: Checker, at: str, container: Container, wrong: frozenset[str], *, image: bool) -> None:
    hint = "command: one program with its arguments; script: lines for a shell"
    if "command" in container and "script" in container:
        to.add(f"{at}.script", "CONFLICT", "`command` and `script` exclude each other", hint)
    elif not image and not {"command", "script"} & container.keys() and not {f"{at}.command", f"{at}.script"} & wrong:
        to.add(f"{at}.command", "MISSING", "one of `command` and `script` is missing", hint)
    if "script" in container and "args" in container:
        to.add(f"{at}.args", "CONFLICT", "`script` and `args` exclude each other", "write the words into the script")
    for name in ("command", "script"):
        if container.get(name, "x").isspace():
            to.add(f"{at}.{name}", "WRONG_VALUE", "there are only spaces; a command is needed")
    command = container.get("command")
    if command is not None:
        try:
            shlex.split(command)
        except ValueError as error:
            to.add(f"{at}.command", "WRONG_VALUE", f"the command cannot be split into words: {error}",
                   "close the quotation, or use `script`")  # fmt: skip


def _check_env(to: Checker, at: str, container: Container, wrong: frozenset[str]) -> None:
    seen: set[str] = set()
    for i, entry in enumerate(container.get("env", [])):
        if entry:
            _check_variable(to, f"{at}.env[{i}]", entry, seen, wrong)


def _check_variable(to: Checker, at: str, entry: dict[str, Any], seen: set[str], wrong: frozenset[str]) -> None:
    name = entry.get("name")
    if name is None:
        return
    if name in seen:
        to.add(f"{at}.name", "CONFLICT", f"{name} is given twice", "keep one of them")
    seen.add(name)
    if name == "PORT" or name.startswith("EASEL_"):
        to.add(f"{at}.name", "RESERVED", f"{name} is set by the platform",
               "the program reads $PORT and listens there" if name == "PORT" else "choose another name")  # fmt: skip
    if "value" in entry and "secretRef" in entry:
        to.add(at, "CONFLICT", "`value` and `secretRef` exclude each other", "keep one of them")
    elif not {"value", "secretRef"} & entry.keys() and f"{at}.value" not in wrong:
        to.add(f"{at}.value", "MISSING", f"{name} has neither `value` nor `secretRef`, and no value is kept for it")


def _check_prepare(to: Checker, container: Container, config: dict[str, Any], *, image: bool) -> None:
    at = "containers[0].prepare.pythonRequirementsPath"
    prepare = container.get("prepare", {})
    path = prepare.get("pythonRequirementsPath")
    if path and "pythonRequirements" in prepare:
        to.add(at, "CONFLICT", "`pythonRequirements` and `pythonRequirementsPath` exclude each other",
               "keep one of them")  # fmt: skip
    mounts = [clean_path(m["mount_path"]) for m in config.get("storage", []) if m and "mount_path" in m]
    if path and not image and not any(is_inside(clean_path(path), m) for m in mounts):
        to.add(at, "WRONG_VALUE", f"{document.shown(path)} is not below any mount_path",
               f"mount paths: {', '.join(mounts)}" if mounts else "add a storage entry that holds it")  # fmt: skip


def _check_image_keys(to: Checker, at: str, container: Container) -> None:
    """Keys that mean something only for a container."""
    for name, hint in OF_IMAGES.items():
        if name in container:
            to.add(f"{at}.{name}", "NOT_SUPPORTED_YET", f"`{at}.{name}` is not supported yet without an `image`", hint)
    for name in ("pull_policy", "pull_timeout_seconds"):
        if name in container:
            to.add(f"{at}.{name}", "CONFLICT", "there is no `image` that could be pulled", "leave it out")


def _check_user(to: Checker, at: str, container: Container) -> None:
    security = container.get("security", {})
    if security.get("non_root") is True and int(security.get("user", "1").partition(":")[0]) == 0:
        to.add(f"{at}.security.user", "CONFLICT", "user 0 is root, and `non_root` is true", "keep one of them")


def _check_metadata_without_image(to: Checker, config: dict[str, Any]) -> None:
    for name, feature in (("gpu", "GPUs of processes"), ("shm_size", "limits of shared memory of processes")):
        if name in config.get("metadata", {}):
            to.add(f"metadata.{name}", "NOT_SUPPORTED_YET",
                   f"`metadata.{name}` is not supported yet without an image ({feature})",
                   "leave it out, or give `containers[0].image`")  # fmt: skip


def _check_sidecar(to: Checker, at: str, container: Container, config: dict[str, Any], wrong: frozenset[str]) -> None:
    for name in PROBES:
        if name in container:
            to.add(f"{at}.{name}", "NOT_SUPPORTED_YET", "checks of sidecars are not supported yet",
                   "leave it out; the checks of `containers[0]` may ask a sidecar's port")  # fmt: skip
    if "prepare" in container:
        to.add(f"{at}.prepare", "NOT_SUPPORTED_YET", "requirements of sidecars are not supported yet",
               "build them into the image")  # fmt: skip
    for name, limit in limits_of(container).items():
        whole = config.get("metadata", {}).get(name, BY_PATH[f"metadata.{name}"].default)
        if f"metadata.{name}" not in wrong and limit > whole:
            to.add(f"{at}.resources", "OUT_OF_RANGE",
                   f"{name} {limit:g} is more than the whole replica has, metadata.{name} {whole:g}",
                   f"raise metadata.{name}: it is for all containers of a replica together")  # fmt: skip


def _check_main_limits(to: Checker, container: Container, config: dict[str, Any], wrong: frozenset[str]) -> None:
    for name, limit in limits_of(container).items():
        whole = config.get("metadata", {}).get(name, BY_PATH[f"metadata.{name}"].default)
        if f"metadata.{name}" not in wrong and limit != whole:
            to.add("containers[0].resources", "CONFLICT", f"{name} {limit:g} here, and metadata.{name} is {whole:g}",
                   f"write metadata.{name}, and leave `resources` of containers[0] out")  # fmt: skip


def _check_limits(to: Checker, at: str, container: Container) -> None:
    resources = container.get("resources", {})
    asked, limits = _numbers(resources.get("requests", {})), _numbers(resources.get("limits", {}))
    for name in asked.keys() & limits.keys():
        if asked[name] > limits[name]:
            to.add(f"{at}.resources.requests.{name}", "CONFLICT",
                   f"{asked[name]:g} is asked for, and {limits[name]:g} is the limit")  # fmt: skip


def limits_of(container: Container) -> dict[str, float]:
    """`cpu` in cores and `memory` in MiB of a container, where it says so: limits, else requests."""
    resources = container.get("resources", {})
    return _numbers(resources.get("requests", {})) | _numbers(resources.get("limits", {}))


def _numbers(section: dict[str, Any]) -> dict[str, float]:
    units = {"cpu": cores_of, "memory": mib_of}
    return {name: unit(section[name]) for name, unit in units.items() if name in section}


def _check_ports(to: Checker, containers: list[Container | None]) -> None:
    """Containers of a replica share their network."""
    taken: dict[int, int] = {}
    for i, container in enumerate(containers):
        port = (container or {}).get("port", BY_PATH["containers[].port"].default if i == 0 else None)
        if port in taken:
            to.add(f"containers[{i}].port", "CONFLICT", f"containers[{taken[port]}] has port {port} already",
                   "containers of a replica share their network: give each a port of its own")  # fmt: skip
        elif port is not None:
            taken[port] = i
