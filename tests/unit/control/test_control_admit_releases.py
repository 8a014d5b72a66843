"""Admission of what concerns releases and zero."""

from __future__ import annotations

from typing import Any

import pytest

from easel_contracts.spec import Autoscaling, RolloutPolicy
from tests.unit.control.test_control_admit import BASE, but, refused, sound


def test_zero_and_its_settings() -> None:
    on_zero = {"scaleDownGracePeriodSeconds": 30, "scaleUpActivationReplicas": 2, "interceptTraffic": False}
    scaler = {"min": 0, "max": 3, "strategies": {"qps": 5}}
    got = sound(but(**{"metadata.instance": 0, "metadata": {"name": "ocr"},
                       "autoscaler": scaler | {"behavior": {"onZero": on_zero}}}))  # fmt: skip

    assert got.instance == 0
    assert got.autoscaling == Autoscaling(min=0, max=3, targets=(("qps", 5.0),), zero_grace_s=30.0,
                                          activation_replicas=2, intercept_traffic=False)  # fmt: skip
    plain = sound(but(autoscaler=scaler)).autoscaling
    assert plain is not None
    assert (plain.zero_grace_s, plain.activation_replicas, plain.intercept_traffic) == (600.0, 1, True)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (but(metadata={"name": "ocr", "instance": 0}), "metadata.instance"),
        (but(metadata={"name": "ocr", "instance": 0}, autoscaler={"min": 1, "max": 2, "strategies": {"qps": 1}}),
         "metadata.instance"),
        (but(autoscaler={"min": 0, "max": 2, "strategies": {"qps": 1},
                         "behavior.onZero.scaleUpActivationReplicas": 3}),
         "autoscaler.behavior.onZero.scaleUpActivationReplicas"),
        (but(autoscaler={"min": 0, "max": 2, "strategies": {"qps": 1},
                         "behavior.onZero.scaleUpActivationReplicas": 0}),
         "autoscaler.behavior.onZero.scaleUpActivationReplicas"),
    ],
)  # fmt: skip
def test_what_zero_does_not_allow(config: dict[str, Any], path: str) -> None:
    assert [(p, e.code) for p, e in refused(config).items()] == [(path, "OUT_OF_RANGE")]


def test_rolling_settings() -> None:
    rollout = {"waves": [10, 100], "wave_pause_seconds": 5, "stop_after": "10%", "on_failure": "pause",
               "revert_after_seconds": 60, "progress_timeout_seconds": 90}  # fmt: skip
    strategy = {"max_surge": "25%", "max_unavailable": 1}
    got = sound(but(rollout=rollout, **{"metadata.rolling_strategy": strategy})).rolling

    assert got == RolloutPolicy(
        max_surge="25%", max_unavailable=1, waves=(10, 100), wave_pause_s=5.0, stop_after="10%", on_failure="pause",
        revert_after_s=60.0, progress_timeout_s=90.0,
    )  # fmt: skip
    assert sound(BASE).rolling == RolloutPolicy()
    assert sound(but(rollout=rollout)).revision == sound(BASE).revision


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"metadata.rolling_strategy.max_surge": 0}, "metadata.rolling_strategy.max_surge", "could ever be replaced"),
        ({"metadata.rolling_strategy.max_surge": "0%", "metadata.rolling_strategy.max_unavailable": "0%"},
         "metadata.rolling_strategy.max_surge", "could ever be replaced"),
        ({"metadata.rolling_strategy.max_surge": "25"}, "metadata.rolling_strategy.max_surge", "percentage"),
        ({"metadata.rolling_strategy.max_surge": "101%"}, "metadata.rolling_strategy.max_surge", "percentage"),
        ({"metadata.rolling_strategy.max_surge": -1}, "metadata.rolling_strategy.max_surge", "at least 0"),
        ({"rollout.stop_after": 0}, "rollout.stop_after", "at least 1"),
        ({"rollout.waves": [20, 50]}, "rollout.waves", "do not rise to 100"),
        ({"rollout.waves": [50, 20, 100]}, "rollout.waves", "do not rise to 100"),
        ({"rollout.waves": []}, "rollout.waves", "1 to 20"),
        ({"rollout.waves": [0, 100]}, "rollout.waves[0]", "at least 1"),
        ({"rollout.on_failure": "revet"}, "rollout.on_failure", "revert"),
    ],
)  # fmt: skip
def test_rolling_mistakes(changes: dict[str, Any], path: str, words: str) -> None:
    errors = refused(but(**changes))

    assert list(errors) == [path]
    assert words in errors[path].message


def test_an_amount_in_quotes_says_what_to_write() -> None:
    error = refused(but(**{"rollout.stop_after": "2"}))["rollout.stop_after"]

    assert error.hint == "write 2 without quotes"
