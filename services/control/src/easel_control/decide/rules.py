"""Rules that join several keys of a service.json: what excludes what, what needs what, what must not overlap.

They run on what `check.py` found sound, also when other keys are wrong, so that one answer holds every error; a key
that is in `wrong` already is not complained about again.
"""

from __future__ import annotations

import shlex
from itertools import pairwise
from typing import Any

from easel_control.decide import document
from easel_control.decide.check import Checker
from easel_control.decide.keys import TREE
from easel_control.decide.later import LATER_METRICS
from easel_control.decide.probes import probes_of

SYSTEM_TREES = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")
"""Nothing may be mounted here or below; `/dev/shm` comes with scratch volumes."""
SYSTEM_PATHS = ("/", "/home", "/opt", "/root", "/run", "/tmp", "/var")
"""Mounts may lie below these, but not on them: they would hide what a program needs to run."""


def check_rules(to: Checker, config: dict[str, Any], wrong: frozenset[str]) -> None:
    """All rules; errors go to `to`. `scaleStrategies` is turned into `strategies` in place."""
    containers = config.get("containers") or [None]
    if containers[0] is not None:
        _check_container(to, containers[0], config, wrong)
    _check_storage(to, config.get("storage", []), wrong)
    _check_scaling(to, config, wrong)
    _check_instance(to, config, wrong)
    _check_rolling(to, config)
    _check_token(to, config, wrong)


def _check_container(to: Checker, container: dict[str, Any], config: dict[str, Any], wrong: frozenset[str]) -> None:
    at = "containers[0]"
    _check_command(to, container, wrong)
    seen: set[str] = set()
    for i, entry in enumerate(container.get("env", [])):
        if entry:
            _check_env(to, f"{at}.env[{i}]", entry, seen, wrong)
    prepare = container.get("prepare", {})
    path = prepare.get("pythonRequirementsPath")
    if path and "pythonRequirements" in prepare:
        to.add(f"{at}.prepare.pythonRequirementsPath", "CONFLICT",
               "`pythonRequirements` and `pythonRequirementsPath` exclude each other", "keep one of them")  # fmt: skip
    mounts = [clean_path(m["mount_path"]) for m in config.get("storage", []) if m and "mount_path" in m]
    if path and not any(is_inside(clean_path(path), m) for m in mounts):
        to.add(f"{at}.prepare.pythonRequirementsPath", "WRONG_VALUE",
               f"{document.shown(path)} is not below any mount_path",
               f"mount paths: {', '.join(mounts)}" if mounts else "add a storage entry that holds it")  # fmt: skip
    probes_of(to, at, container, wrong)


def _check_command(to: Checker, container: dict[str, Any], wrong: frozenset[str]) -> None:
    at = "containers[0]"
    hint = "command: one program with its arguments; script: lines for a shell"
    if "command" in container and "script" in container:
        to.add(f"{at}.script", "CONFLICT", "`command` and `script` exclude each other", hint)
    elif not {"command", "script"} & container.keys() and not {f"{at}.command", f"{at}.script"} & wrong:
        to.add(f"{at}.command", "MISSING", "one of `command` and `script` is missing", hint)
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


def _check_env(to: Checker, at: str, entry: dict[str, Any], seen: set[str], wrong: frozenset[str]) -> None:
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


def _check_storage(to: Checker, storage: list[dict[str, Any] | None], wrong: frozenset[str]) -> None:
    earlier: list[tuple[str, str]] = []
    for i, entry in enumerate(storage):
        at = f"storage[{i}]"
        if entry is None:
            continue
        path = entry.get("mount_path")
        local = entry.get("local")
        if local is None:
            if any(path.startswith(f"{at}.") and path != f"{at}.mount_path" for path in wrong):
                continue
            to.add(f"{at}.local", "MISSING", "no `local` says what is mounted", '"local": {"path": "/absolute/path"}')
        elif not {"path", "digest"} & local.keys() and not {f"{at}.local.path", f"{at}.local.digest"} & wrong:
            to.add(f"{at}.local.path", "MISSING", "one of `path` and `digest` is missing")
        elif "digest" in local and local.get("readOnly") is False:
            to.add(f"{at}.local.readOnly", "CONFLICT", "an uploaded archive is read-only", "leave readOnly out")
        if path is None:
            continue
        clean = clean_path(path)
        if ".." in path.split("/") or clean in SYSTEM_PATHS or any(is_inside(clean, s) for s in SYSTEM_TREES):
            to.add(f"{at}.mount_path", "WRONG_VALUE", f"{path} is a place of the system, or leads out of its place",
                   "choose a path such as /code or /mnt/model")  # fmt: skip
        for other, where in earlier:
            if is_inside(clean, other) or is_inside(other, clean):
                to.add(f"{at}.mount_path", "CONFLICT", f"{path} overlaps with {where}.mount_path, {other}")
        earlier.append((clean, at))


def clean_path(path: str) -> str:
    """The path with single slashes and none at the end."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def is_inside(path: str, directory: str) -> bool:
    """Whether a path is a directory or below it; both clean."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _check_scaling(to: Checker, config: dict[str, Any], wrong: frozenset[str]) -> None:
    """Autoscaler rules; turns `scaleStrategies` into `strategies` in place."""
    section = config.get("autoscaler")
    if section is None:
        return
    low, high = section.get("min"), section.get("max")
    if low is not None and high is not None and high < low:
        to.add("autoscaler.max", "OUT_OF_RANGE", f"max is {high}, less than min, {low}")
    activation = section.get("behavior", {}).get("onZero", {}).get("scaleUpActivationReplicas")
    if activation is not None and high is not None and high < activation:
        to.add("autoscaler.behavior.onZero.scaleUpActivationReplicas", "OUT_OF_RANGE",
               f"{activation} replicas for the first request, and at most {high} by max")  # fmt: skip
    if "scaleStrategies" in section:
        listed = _listed_strategies(to, section.pop("scaleStrategies"))
        if "strategies" in section and not document.same(section["strategies"], listed):
            to.add("autoscaler.scaleStrategies", "CONFLICT",
                   "`strategies` and `scaleStrategies` are both given and differ", "keep one of them")  # fmt: skip
        section["strategies"] = listed
    bad = any(path.startswith(("autoscaler.strategies", "autoscaler.scaleStrategies")) for path in wrong)
    if not section.get("strategies") and not bad and not any("scaleStrategies[" in e.path for e in to.errors):
        to.add(
            "autoscaler.strategies", "MISSING", "no target is given", '"strategies": {"qps": 10} or {"concurrency": 4}'
        )


def _check_instance(to: Checker, config: dict[str, Any], wrong: frozenset[str]) -> None:
    if config.get("metadata", {}).get("instance") != 0 or "autoscaler.min" in wrong:
        return
    if config.get("autoscaler", {}).get("min") != 0:
        to.add("metadata.instance", "OUT_OF_RANGE", "0 is allowed only where autoscaler.min is 0",
               "`easel stop` is the way to no replica; with autoscaler.min 0 a request starts one")  # fmt: skip


def _check_rolling(to: Checker, config: dict[str, Any]) -> None:
    strategy = config.get("metadata", {}).get("rolling_strategy", {})
    none = (0, "0%")
    if strategy.get("max_surge") in none and strategy.get("max_unavailable", 0) in none:
        to.add("metadata.rolling_strategy.max_surge", "CONFLICT",
               "max_surge and max_unavailable are both 0: no replica could ever be replaced",
               "max_surge 1 starts a new replica before an old one ends")  # fmt: skip
    waves = config.get("rollout", {}).get("waves")
    if not waves or None in waves:
        return
    if waves[-1] != 100 or any(later <= earlier for earlier, later in pairwise(waves)):
        to.add("rollout.waves", "WRONG_VALUE", f"{waves} do not rise to 100", "for example [20, 50, 100], or [100]")


def _listed_strategies(to: Checker, listed: list[dict[str, Any] | None]) -> dict[str, Any]:
    known = tuple(TREE.children["autoscaler"].children["strategies"].children)
    out: dict[str, Any] = {}
    for i, entry in enumerate(listed):
        if entry is None:
            continue
        at, metric = f"autoscaler.scaleStrategies[{i}].metricName", entry.get("metricName")
        if metric is None or "threshold" not in entry:
            continue
        if metric in LATER_METRICS or metric.startswith("custom["):
            to.add(at, "NOT_SUPPORTED_YET", f"scaling on {document.shown(metric)} is not supported yet",
                   "use qps or concurrency")  # fmt: skip
        elif metric not in known:
            to.add(at, "OUT_OF_RANGE", f'"{document.shown(metric)}" is not a metric; qps or concurrency is allowed')
        elif metric in out:
            to.add(at, "CONFLICT", f"{metric} is given twice", "keep one of them")
        else:
            out[metric] = entry["threshold"]
    return out


def _check_token(to: Checker, config: dict[str, Any], wrong: frozenset[str]) -> None:
    generate = config.pop("generate_token", None)
    if generate is True and "token" in config:
        to.add("generate_token", "CONFLICT", "a token is given and another is to be made", "keep one of them")
    if generate is False and "token" not in config and "token" not in wrong:
        to.add("generate_token", "CONFLICT", "every service has a token", "leave generate_token out, or give `token`")
