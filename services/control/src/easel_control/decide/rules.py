"""Rules that join several keys of a service.json: what excludes what, what needs what, what must not overlap.

They run on what `check.py` found sound, also when other keys are wrong, so that one answer holds every error; a key
that is in `wrong` already is not complained about again.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from easel_control.decide import document
from easel_control.decide.check import Checker
from easel_control.decide.container_rules import check_containers
from easel_control.decide.gateway_rules import check_gateway
from easel_control.decide.images import login_problem
from easel_control.decide.keys import TREE
from easel_control.decide.later import LATER_METRICS
from easel_control.decide.storage_rules import check_storage


def check_rules(to: Checker, config: dict[str, Any], wrong: frozenset[str]) -> None:
    """All rules; errors go to `to`. `scaleStrategies` is turned into `strategies` in place."""
    image = check_containers(to, config, wrong)
    check_storage(to, config, wrong, image=image)
    _check_scaling(to, config, wrong)
    _check_instance(to, config, wrong)
    _check_rolling(to, config)
    check_gateway(to, config, wrong)
    _check_token(to, config, wrong)
    _check_login(to, config)


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


def _check_login(to: Checker, config: dict[str, Any]) -> None:
    if "dockerAuth" in config and (problem := login_problem(config["dockerAuth"])):
        to.add("dockerAuth", "WRONG_VALUE", *problem)
