"""What becomes of a request that comes while no replica takes traffic."""

from __future__ import annotations

import pytest

from easel_router.decide.coldstart import KEPT, expected_s, typical
from easel_router.decide.holding import UNKNOWN_RETRY_AFTER_S, Refuse, Wait, admit, limit_s, retry_after_s
from easel_router.decide.snapshot import Hold
from easel_router.testing import a_plan

HELD = a_plan("ocr", hold=Hold(max_requests=3), keepalive_ms=10_000)


def test_it_waits_at_the_end_of_the_line() -> None:
    """Position and what is left of the time limit."""
    verdict = admit(HELD, held=2, waited_s=4.0, limit=10.0, expected_s=1.5)

    assert verdict == Wait(left_s=6.0, position=3, expected_s=1.5)


def test_a_full_line_is_told_with_numbers() -> None:
    """503 with Retry-After, and the setting that decides."""
    verdict = admit(HELD, held=3, waited_s=0.0, limit=10.0, expected_s=2.1)

    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.code, verdict.retry_after_s) == (503, "HoldQueueFull", 3)
    assert "3 requests wait" in verdict.message
    assert "hold_max_requests" in verdict.message


def test_nobody_waits_for_what_cannot_come() -> None:
    """A crash loop: the reason at once."""
    plan = a_plan("ocr", hold=Hold(max_requests=3, hopeless="replica ocr-1-abcde crashes in a loop"))

    verdict = admit(plan, held=0, waited_s=0.0, limit=600.0, expected_s=None)

    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.code, verdict.retry_after_s) == (503, "ServiceFailed", UNKNOWN_RETRY_AFTER_S)
    assert "crashes in a loop" in verdict.message


def test_a_service_that_is_only_woken() -> None:
    """interceptTraffic false: 503, and when to come back."""
    verdict = admit(
        a_plan("ocr", hold=Hold(max_requests=3, wakes_only=True)), held=0, waited_s=0.0, limit=9.0, expected_s=7.2
    )

    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.code, verdict.retry_after_s) == (503, "WakingUp", 8)


@pytest.mark.parametrize(
    ("limit", "whose"), [(10.0, "the service's limit (metadata.rpc.keepalive)"), (2.0, "the client's own limit")]
)
def test_time_that_is_over_is_over(limit: float, whose: str) -> None:
    """408, also for a request that waited before the router was restarted; whose limit it was is said."""
    verdict = admit(HELD, held=0, waited_s=limit, limit=limit, expected_s=None)

    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.code) == (408, "RequestTimeout")
    assert whose in verdict.message


@pytest.mark.parametrize(
    ("header", "grpc", "expected"),
    [
        ("", "", 10.0),
        ("2.5", "", 2.5),
        ("60", "", 10.0),
        ("", "500m", 0.5),
        ("", "3S", 3.0),
        ("1", "3S", 1.0),
        ("soon", "", 10.0),
        ("-1", "", 10.0),
        ("nan", "", 10.0),
        ("", "99X", 10.0),
    ],
)
def test_the_shorter_limit_counts(header: str, grpc: str, expected: float) -> None:
    """The client's, in its own header or as gRPC says it, or the service's; nonsense counts as none."""
    assert limit_s(HELD, header, grpc) == expected


def test_retry_after_is_whole_seconds() -> None:
    """At least one; a guess where nothing is known."""
    assert [retry_after_s(value) for value in (None, 0.0, 0.2, 4.01)] == [UNKNOWN_RETRY_AFTER_S, 1, 1, 5]


def test_cold_starts_are_medians_of_the_newest() -> None:
    """One slow start does not change what is expected; old ones are forgotten."""
    old = [{"start": 100.0}] * 3
    seen = [{"fetch": 0.1, "start": 1.0, "route": 0.02}] * (KEPT - 1) + [{"fetch": 30.0, "start": 9.0, "route": 0.02}]

    assert typical(old + seen) == {"fetch": 0.1, "start": 1.0, "route": 0.02, "total": 1.12}
    assert typical([]) == {}


def test_what_is_under_way_takes_less() -> None:
    """And one that takes longer than usual still takes a while."""
    known = {"total": 2.0}

    assert expected_s(known, 0.0) == 2.0
    assert expected_s(known, 1.5) == 0.5
    assert expected_s(known, 10.0) == 0.2
    assert expected_s({}, 0.0) is None
