"""service.json → what is to run, or every reason why not.

`admit` never raises and reads nothing but its arguments. What it returns is complete: a revision's content, scaling,
rollouts, token, environment and the configuration in one normal spelling, which admits to the same again.
"""

from __future__ import annotations

import json
import re
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import FieldError
from easel_contracts.spec import Autoscaling, GatewayPolicy, RevisionSpec, RolloutPolicy
from easel_control.decide import document
from easel_control.decide.check import Checker
from easel_control.decide.content import get, revision_of
from easel_control.decide.document import Document
from easel_control.decide.gateway_rules import policy_of
from easel_control.decide.keys import ALIASES, MAPS, TREE
from easel_control.decide.rules import check_rules
from easel_control.decide.secrets import RevisionSecrets, secrets_of


class Admitted(Struct, frozen=True, kw_only=True):
    """A sound service.json. Holds secrets: never log or tell it."""

    name: str
    instance: int
    revision: RevisionSpec
    """Number 0 and no source digests: the caller knows these."""
    autoscaling: Autoscaling | None
    rolling: RolloutPolicy
    gateway: GatewayPolicy
    group: str
    """Empty: none."""
    token: str | None
    """None: keep the one there is, or make one."""
    secrets: RevisionSecrets
    labels: dict[str, str]
    workspace_id: str
    config: dict[str, Any]
    """Nested, only what was given, without token; all other secrets included."""

    def __repr__(self) -> str:
        return f"Admitted({self.name!r})"


def parse(text: str) -> Document:
    """The text in the one nested spelling."""
    return document.parse(text, lambda path: re.sub(r"\[\d+\]", "[]", path) in MAPS, ALIASES)


def admit(text: str) -> Admitted | tuple[FieldError, ...]:
    """What the text asks for, or everything that is wrong with it."""
    return admit_document(parse(text))


def admit_document(parsed: Document) -> Admitted | tuple[FieldError, ...]:
    """As `admit`, for a document that was parsed, or merged, before."""
    if not parsed.value and parsed.errors:
        return parsed.errors
    checker = Checker()
    config = checker.object(TREE, {"metadata": {}} | parsed.value, "")
    errors = [*parsed.errors, *checker.errors]
    joined = Checker()
    check_rules(joined, config, frozenset(e.path for e in errors))
    errors += joined.errors
    if errors:
        return _placed(errors, parsed)
    return _admitted(config)


def _placed(errors: list[FieldError], parsed: Document) -> tuple[FieldError, ...]:
    """The errors with line and column, in the order of the file; each once."""
    spelled = {path: spelling for spelling, path in ALIASES.items()}
    out: dict[tuple[str, str, str], FieldError] = {}
    for error in errors:
        place = parsed.places.get(error.path) or parsed.places.get(spelled.get(error.path, ""))
        if place and error.line is None:
            error = replace(error, line=place[0], column=place[1])
        out.setdefault((error.path, error.code, error.message), error)
    return tuple(sorted(out.values(), key=lambda e: (e.line or 10**9, e.column or 0)))


def _admitted(config: dict[str, Any]) -> Admitted:
    """The value for a configuration in which nothing is wrong."""
    token = config.pop("token", None)
    config = _without_empty(config)
    return Admitted(
        name=config["metadata"]["name"],
        instance=get(config, "metadata.instance"),
        revision=revision_of(config),
        autoscaling=_autoscaling(config),
        rolling=_rolling(config),
        gateway=policy_of(config),
        group=config["metadata"].get("group", ""),
        token=token,
        secrets=secrets_of(config),
        labels=config.get("labels", {}),
        workspace_id=config["metadata"].get("workspace_id", ""),
        config=config,
    )


def _autoscaling(config: dict[str, Any]) -> Autoscaling | None:
    section = config.get("autoscaler")
    if section is None:
        return None
    window = "stabilizationWindowSeconds"
    return Autoscaling(
        min=section["min"],
        max=section["max"],
        targets=tuple(sorted((name, float(threshold)) for name, threshold in section["strategies"].items())),
        scale_up_window_s=float(get(config, f"autoscaler.behavior.scaleUp.{window}")),
        scale_down_window_s=float(get(config, f"autoscaler.behavior.scaleDown.{window}")),
        zero_grace_s=float(get(config, "autoscaler.behavior.onZero.scaleDownGracePeriodSeconds")),
        activation_replicas=get(config, "autoscaler.behavior.onZero.scaleUpActivationReplicas"),
        intercept_traffic=get(config, "autoscaler.behavior.onZero.interceptTraffic"),
    )


def _rolling(config: dict[str, Any]) -> RolloutPolicy:
    return RolloutPolicy(
        max_surge=get(config, "metadata.rolling_strategy.max_surge"),
        max_unavailable=get(config, "metadata.rolling_strategy.max_unavailable"),
        waves=tuple(get(config, "rollout.waves")),
        wave_pause_s=float(get(config, "rollout.wave_pause_seconds")),
        stop_after=get(config, "rollout.stop_after"),
        on_failure=get(config, "rollout.on_failure"),
        revert_after_s=float(get(config, "rollout.revert_after_seconds")),
        progress_timeout_s=float(get(config, "rollout.progress_timeout_seconds")),
    )


def _without_empty(value: dict[str, Any]) -> dict[str, Any]:
    """Without sections that say nothing; `tcp_socket` is a word by itself."""
    out = {k: _without_empty(v) if isinstance(v, dict) and k not in MAPS else v for k, v in value.items()}
    return {k: v for k, v in out.items() if v != {} or k in ("tcp_socket", "http_get")}


def text_of(config: dict[str, Any]) -> str:
    """A configuration as text, the same for the same content."""
    return json.dumps(config, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
