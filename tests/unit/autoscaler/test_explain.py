"""Answers to "why as many?"."""

from __future__ import annotations

from easel_autoscaler.decide.decision import Held
from easel_autoscaler.decide.explain import Journal, explain
from tests.unit.autoscaler.made import current, from_zero, load, policy, service, waiting

JOURNAL = Journal(number=4, ago_s=42.0, before=1, wanted=3, reason="ScaleOut", message="because of the load")


def test_all_that_led_here() -> None:
    """Policy, last decision, load, and what holds it."""
    held = Held(reason="ScaleInWaits", message="the load is known for 5 s")
    lines = explain(service(policy(1, 5, qps=10.0)), current(3), JOURNAL, load(3, qps=2.0), held)

    assert [line.code for line in lines] == ["AutoscalerPolicy", "ScaleOut", "Load", "ScaleInWaits"]
    assert lines[0].message == "1 to 5 replicas for qps 10 per replica; more after 0 s, fewer after 300 s"
    assert lines[1].message == "decision 4, 42 s ago: 1 → 3, because of the load"
    assert lines[2].message == "per replica, on 3 ready: qps 2 of 10"


def test_unknown_load_is_said_so() -> None:
    """Never shown as zero."""
    held = Held(reason="NoMetrics", message="stays")

    assert explain(service(policy()), current(3), JOURNAL, None, held)[2].code == "LoadUnknown"
    assert explain(service(policy()), current(3), JOURNAL, load(0), held)[2].code == "NoReadyReplica"


def test_fixed_stopped_and_undecided() -> None:
    """Services whose count does not follow the load."""
    held = Held(reason="Fixed", message="")

    assert [line.code for line in explain(service(), current(1), JOURNAL, None, held)] == ["FixedPolicy", "ScaleOut"]
    assert explain(service(wanted="stopped"), current(1), JOURNAL, None, held)[1].code == "NotRunning"
    assert explain(service(), None, None, None, held)[1].code == "Undecided"


def test_at_zero_nothing_is_missing() -> None:
    """No trouble with metrics, but what the first request will do and how long that took before."""
    held = Held(reason="AtZero", message="no replica, and none is needed; the first request starts 1")
    seen, unseen = (explain(service(from_zero()), current(0), JOURNAL, None, held, s) for s in (3.2, None))

    assert [line.code for line in seen] == ["AutoscalerPolicy", "ScaleOut", "AtZero"]
    assert seen[0].message == (
        "0 to 10 replicas for concurrency 2 per replica; more after 0 s, fewer after 300 s; none after 60 s without a"
        " request, then 1 at the first one"
    )
    assert seen[2].message == f"now: {held.message}, which took about 3 s the last time"
    assert unseen[2].message == f"now: {held.message}"


def test_who_waits_is_said() -> None:
    """While the first replica starts."""
    held = Held(reason="OnTarget", message="")
    line = explain(service(from_zero()), current(1), JOURNAL, waiting(3), held)[2]

    assert line.code == "NoReadyReplica"
    assert line.message.endswith("; 3 requests wait, the first for 0.02 s")
