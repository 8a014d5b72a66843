"""Canaries by the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from easel_proto.v1.canaries_pb2 import ArmCounts, Canary, CanaryEvidence, CanaryNote, CanaryPlan
from easel_sdk import SyncClient
from tests.flow.cli.conftest import Easel, json_of
from tests.flow.sdk.platform import KEY, Platform


def ramping(**more: Any) -> Canary:
    """A canary in the middle."""
    return Canary(**{
        "id": "c1", "name": "ocr", "kind": "service", "state": "ramping", "stable_revision": 1,
        "candidate_revision": 2, "step": 1, "weight_permille": 50, "realised_permille": 50,
        "plan": CanaryPlan(steps_permille=[10, 50, 1000], step_time_s=300, metrics=["errors", "latency"],
                           on_breach="rollback", error_limit_percent=0.5, latency_limit_ratio=1.2),
        "stable": ArmCounts(requests=19000, errors=19, p50_ms=20, p95_ms=80, p99_ms=120),
        "candidate_counts": ArmCounts(requests=1000, errors=10, p50_ms=21, p95_ms=90, p99_ms=130),
        "evidence": [CanaryEvidence(kind="errors", log10_e=1.0, limit_log10_e=2.0, rate_ratio=10.0, stable_events=19,
                                    candidate_events=10, not_worse_ratio=0.4)],
        "journal": [CanaryNote(reason="Step", message="1 % → 5 %", weight_permille=50)],
        "waits_for": "the step lasts until 12:00:00 UTC", "message": "1 % → 5 %", **more,
    })  # fmt: skip


def test_start_with_everything(platform: Platform, easel: Easel) -> None:
    result = easel(
        "canary", "start", "ocr", "-Dmetadata.cpu=2", "--steps", "1,5,25,50,100", "--step-time", "5m", "--metric",
        "errors", "--min-requests", "50", "--time-limit", "1h", "--error-limit", "1", "--latency-limit", "1.5",
        "--on-breach", "pause", "--keep-stable", "--mirror-gate", "--manual", "--header", "x-canary=a=b",
        "--sticky", "cookie:user", "--allow-interruption",
    )  # fmt: skip

    request = platform.asked("Canaries.Start")[0]
    assert result.exit_code == 0, result.stderr
    assert (request.name, json.loads(request.config), request.update_type) == ("ocr", {"metadata": {"cpu": 2}}, "merge")
    plan = request.plan
    assert list(plan.steps_permille) == [10, 50, 250, 500, 1000]
    assert (plan.step_time_s, plan.time_limit_s, plan.min_requests) == (300, 3600, 50)
    assert (plan.error_limit_percent, plan.latency_limit_ratio, list(plan.metrics)) == (1, 1.5, ["errors"])
    assert (plan.on_breach, plan.keep_stable, plan.mirror_gate, plan.manual) == ("pause", True, True, True)
    assert (plan.match.kind, plan.match.name, plan.match.value) == ("header", "x-canary", "a=b")
    assert (plan.sticky.kind, plan.sticky.name, request.allow_interruption) == ("cookie", "user", True)
    assert request.idempotency_key
    assert "[OK] Canary of ocr is on: revision 2 beside 1" in result.stderr
    assert "warning: mind the cache" in result.stderr


def test_defaults_are_the_platforms(platform: Platform, easel: Easel) -> None:
    assert easel("canary", "start", "ocr", "--revision", "4").exit_code == 0
    request = platform.asked("Canaries.Start")[0]
    assert (request.revision, request.config) == (4, "")
    assert request.plan == CanaryPlan(on_breach="rollback")


def test_blue_green_is_one_step_beside_a_whole_stable(platform: Platform, easel: Easel) -> None:
    assert easel("canary", "start", "ocr", "--blue-green").exit_code == 0
    plan = platform.asked("Canaries.Start")[0].plan
    assert (list(plan.steps_permille), plan.keep_stable) == ([1000], True)
    assert easel("canary", "start", "ocr", "--blue-green", "--steps", "50,100").exit_code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--steps", "1,0.25,100"), "--steps: '0.25' is no share"),
        (("--steps", "one"), "--steps: 'one' is no share"),
        (("--step-time", "soon"), "--step-time 'soon'"),
        (("--step-time", "0.2"), "too short"),
        (("--header", "x"), "NAME=VALUE"),
        (("--header", "x=1", "--query", "y=1"), "stand for each other"),
        (("--sticky", "body:x"), "header|cookie|query:NAME"),
    ],
)
def test_what_cannot_be_read_changes_nothing(
    platform: Platform, easel: Easel, options: tuple[str, ...], said: str
) -> None:
    result = easel("canary", "start", "ocr", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert platform.asked("Canaries.Start") == []


def test_shown_with_counts_and_evidence(platform: Platform, easel: Easel) -> None:
    platform.canaries = [ramping()]
    text = easel("canary", "ocr").stdout
    for words in ("Canary     ocr, ramping", "1 % → [5 %] → 100 %, 300 s each at least", "Weight     5 %",
                  "errors, below 0.5 %; latency, p95 below 1.2 times stable's; when it is worse: back",
                  "Waits for  the step lasts until 12:00:00 UTC", "stable     19,000    19 (0.1 %)  20 ms  80 ms",
                  "candidate  1,000     10 (1 %)", "██████████░░░░░░░░░░  10^1.0 of 10^2.0", "10 / 19", "0.4 of 20",
                  "Step  1 % → 5 %"):  # fmt: skip
        assert words in text, text
    assert json_of(easel("canary", "desc", "ocr", "-o", "json"))["candidate_counts"]["errors"] == 10
    assert easel("canary", "nope").exit_code == 0


def test_followed_to_its_end(platform: Platform, easel: Easel) -> None:
    """A line for each change; exit code 1 when it went back."""
    over = ramping(state="rolled_back", weight_permille=0, realised_permille=0, waits_for="", message="errors: 10")
    platform.canaries = [ramping(), ramping(), over]
    result = easel("canary", "ocr", "-f")
    assert result.exit_code == 1
    assert result.stderr.count("ramping at 5 %") == 1
    assert "rolled back at 0 %" in result.stderr
    assert "candidate 1,000 requests, 10 errors" in result.stderr
    assert "[!!] Canary of ocr: rolled back" in result.stderr
    platform.canaries = [ramping(state="promoted")]
    assert easel("canary", "start", "ocr", "-Dmetadata.cpu=2", "--wait").exit_code == 0


def test_listed(platform: Platform, easel: Easel) -> None:
    assert "no canaries" in easel("canary", "ls").stderr
    platform.canaries = [ramping(), ramping(name="letters", kind="group", candidate="ocr_next", state="promoted")]
    text = easel("canary", "ls").stdout
    assert "ocr      revision 2 beside 1" in text
    assert "letters  ocr_next" in text


@pytest.mark.parametrize("action", ["promote", "pause", "resume", "abort", "step"])
def test_by_hand(platform: Platform, easel: Easel, action: str) -> None:
    platform.canaries = [ramping()]
    result = easel("canary", action, "ocr")
    request = platform.asked("Canaries.Change")[0]
    assert (request.name, request.action, bool(request.idempotency_key)) == ("ocr", action, True)
    assert "[OK] Canary of ocr: " in result.stderr


def test_nothing_there(easel: Easel) -> None:
    assert easel("canary", "ocr").exit_code == 3


def test_the_sync_client_has_it_all(platform: Platform) -> None:
    platform.canaries = [ramping(), ramping(state="promoted")]
    with SyncClient(platform.server, KEY) as client:
        assert client.canaries.get("ocr").state == "promoted"
        assert [c.state for c in client.canaries.watch("ocr")] == ["ramping", "promoted"]
        assert len(client.canaries.list()) == 2
        assert client.canaries.change("ocr", "pause").name == "ocr"
        assert client.canaries.start("ocr", {"metadata": {"cpu": 2}}).id == "c1"
