"""Clones, locks, zero and autoscalers by the command line, and what is shown of requests that wait."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest

from easel_proto.v1.canaries_pb2 import ArmCounts, Canary
from easel_proto.v1.common_pb2 import Why
from easel_proto.v1.mirrors_pb2 import CompareOptions, Mirror
from easel_proto.v1.routes_pb2 import Route
from easel_proto.v1.scaling_pb2 import Decision, ScaleTarget, ScalingStatus
from easel_proto.v1.services_pb2 import Rollout, Service
from easel_proto.v1.tokens_pb2 import AccessToken
from tests.flow.cli.conftest import Easel, json_of
from tests.flow.sdk.platform import Platform

CONFIG = {"name": "ocr", "containers": [{"port": 1, "command": "x"}]}


@pytest.fixture(autouse=True)
def service(platform: Platform, easel: Easel) -> Service:
    """The service `ocr`."""
    easel("create", "-", input=json.dumps({"name": "ocr"}))
    platform.services["ocr"].service_config = json.dumps(CONFIG)
    return platform.services["ocr"]


def shown(easel: Easel, *arguments: str) -> dict[str, str]:
    """Two columns as a mapping."""
    lines = [line.split(None, 1) for line in easel(*arguments).stdout.splitlines() if line and line[0] != " "]
    return {line[0]: line[1] if len(line) > 1 else "" for line in lines}


def test_clone_with_changes(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """Laid over the original's configuration, its lists included; it ends with the new URL and token."""
    (tmp_path / "more.json").write_text('{"metadata": {"memory": 512}}')
    platform.path["next"] = ["Waiting", "Running"]

    result = easel("clone", "ocr", "next", "-s", str(tmp_path / "more.json"), "-Dmetadata.cpu=2",
                   "-Dcontainers[0].port=2", "--wait", "--timeout", "30")  # fmt: skip

    request = platform.asked("Services.Clone")[0]
    assert (request.name, request.new_name) == ("ocr", "next")
    assert json.loads(request.config) == {"metadata": {"memory": 512, "cpu": 2},
                                          "containers": [{"port": 2, "command": "x"}]}  # fmt: skip
    assert result.exit_code == 0
    assert "Service next is created as a clone of ocr" in result.stderr
    assert "/api/predict/next" in result.stdout
    assert "another-token" in result.stdout


def test_lock_refuses_stop_and_delete(platform: Platform, easel: Easel, service: Service) -> None:
    """With code and hint; unlocked again, they go through."""
    assert "Service ocr is locked (dangerous)" in easel("lock", "ocr", "dangerous").stderr
    for command in (("stop", "ocr"), ("delete", "ocr", "-y")):
        refused = easel(*command)
        assert refused.exit_code == 1
        assert "ocr is locked (dangerous) (LOCKED)\nhint: `easel lock ocr none`" in refused.stderr
    assert shown(easel, "desc", "ocr")["SafetyLock"] == "dangerous"

    assert "Service ocr is unlocked" in easel("lock", "ocr", "none").stderr
    assert easel("stop", "ocr").exit_code == 0
    assert easel("lock", "ocr", "much").exit_code == 2


def test_scale_to_nothing_names_the_ways_to_it(easel: Easel) -> None:
    """Stop, or an autoscaler with min 0."""
    result = easel("scale", "ocr", "0")

    assert result.exit_code == 2
    assert "instance 0 is not allowed" in result.stderr
    assert "hint: `easel stop ocr`, or autoscaler.min 0" in result.stderr


def test_autoscale_by_keys(platform: Platform, easel: Easel) -> None:
    """EASCMD's spelling; names of metrics are taken whole, whatever they hold."""
    platform.path["ocr"] = ["Running"]

    result = easel("autoscale", "ocr", "-Dmin=0", "-Dmax=5", "-Dstrategies.qps=10",
                   "-Dstrategies.queue[avgbacklog]=3", "-Dbehavior.scaleDown.stabilizationWindowSeconds=100",
                   "--wait", "--timeout", "30")  # fmt: skip

    request = platform.asked("Services.Update")[0]
    assert result.exit_code == 0
    assert request.update_type == "merge"
    assert json.loads(request.config) == {"autoscaler": {
        "min": 0, "max": 5, "strategies": {"qps": 10, "queue[avgbacklog]": 3},
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 100}},
    }}  # fmt: skip


def test_autoscale_by_file(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """The section alone, with keys put into it; - is stdin."""
    (tmp_path / "scaler.json").write_text('{"min": 1, "max": 3, "strategies": {"concurrency": 4}}')

    easel("autoscale", "ocr", "-s", str(tmp_path / "scaler.json"), "-Dmax=9")
    easel("autoscale", "ocr", "-s", "-", input='{"max": 2}')

    sent = [json.loads(request.config)["autoscaler"] for request in platform.asked("Services.Update")]
    assert sent == [{"min": 1, "max": 9, "strategies": {"concurrency": 4}}, {"max": 2}]


def test_autoscale_rm(platform: Platform, easel: Easel, service: Service) -> None:
    """Removes the section; more than a name is bad input."""
    service.service_config = json.dumps({"autoscaler": {"min": 1}})

    assert easel("autoscale", "rm", "ocr").exit_code == 0
    assert json.loads(platform.asked("Services.Update")[0].config) == {"autoscaler": None}
    for wrong in (("rm",), ("rm", "ocr", "-Dmin=1"), ("ocr", "other")):
        assert easel("autoscale", *wrong).exit_code == 2
    assert len(platform.asked("Services.Update")) == 1


def test_autoscale_shows_what_was_decided(platform: Platform, easel: Easel) -> None:
    """Limits, targets with what is measured (unknown is not zero), and the last decisions."""
    platform.scaling = ScalingStatus(
        enabled=True, min=0, max=5, wanted=2,
        targets=[ScaleTarget(metric="qps", threshold=10, current=12.5, has_current=True),
                 ScaleTarget(metric="concurrency", threshold=4)],
    )  # fmt: skip
    platform.decisions = [Decision(number=7, before=1, wanted=2, reason="ScaleOut", message="12.5 qps asks for 2"),
                          Decision(number=6, before=1, wanted=1, reason="Kept")]  # fmt: skip

    text = easel("autoscale", "ocr").stdout
    found = json_of(easel("autoscale", "ocr", "-o", "json"))

    assert "Limits    0 to 5" in text
    assert "qps 10 per replica, now 12.5" in text
    assert "concurrency 4 per replica, now not known" in text
    assert "1 → 2     ScaleOut  12.5 qps asks for 2" in text
    assert platform.asked("Services.Update") == []
    assert (found["wanted"], [d["number"] for d in found["decisions"]]) == (2, [7, 6])


def test_desc_shows_who_waits_and_how_long_a_start_takes(platform: Platform, easel: Easel, service: Service) -> None:
    """Joined from the router; the rollout in a line."""
    service.rollout.CopyFrom(Rollout(from_revision=1, to_revision=2, share_percent=50, message="wave 2 of 3"))
    platform.route = Route(state="probed", holding=True, held=12, expected_wait_s=3.25, cold_starts=4,
                           cold_start_s={"start": 2.0, "schedule": 0.1, "route": 0.04})  # fmt: skip

    found = shown(easel, "desc", "ocr")
    document = json_of(easel("desc", "ocr", "-o", "json"))

    assert found["Rollout"] == "revision 1 → 2, up to 50 %: wave 2 of 3"
    assert found["Held"] == "12 requests wait for a replica, about 3.2 s for one that comes now"
    assert found["ColdStart"] == "schedule 0.1 s, start 2.0 s, route 0.0 s (median of 4)"
    assert (document["route"]["held"], document["rollout"]["to_revision"]) == (12, 2)


def test_desc_without_the_router(platform: Platform, easel: Easel) -> None:
    """What control knows is shown all the same, and who is silent."""
    platform.fail("Routes.Get", *[grpc.StatusCode.PERMISSION_DENIED] * 2)

    assert shown(easel, "desc", "ocr")["Route"].startswith("not known: ")
    assert json_of(easel("desc", "ocr", "-o", "json"))["route"] is None


def test_desc_shows_tokens_mirror_and_the_canary_that_is_on(platform: Platform, easel: Easel) -> None:
    """A line each; nothing where there is none, or a canary has ended; the document is the service's alone."""
    bare, document = shown(easel, "desc", "ocr"), json_of(easel("desc", "ocr", "-o", "json"))
    platform.tokens["ocr"] = [AccessToken(name="default"), AccessToken(name="mobile")]
    platform.mirrors["ocr"] = Mirror(name="ocr", targets=["echo"], percent=10, compare=CompareOptions())
    canary = Canary(id="c1", name="ocr", kind="service", state="ramping", weight_permille=50, realised_permille=50,
                    stable=ArmCounts(requests=1900), candidate_counts=ArmCounts(requests=100, errors=2),
                    waits_for="500 requests")  # fmt: skip
    platform.canaries = [canary]

    found = shown(easel, "desc", "ocr")
    assert not bare.keys() & {"Tokens", "Mirror", "Canary"}
    assert found["Tokens"] == "2: default, mobile"
    assert found["Mirror"] == "10 % to echo, answers compared"
    assert found["Canary"].startswith("ramping at 5 % · candidate 100 requests, 2 errors")
    assert json_of(easel("desc", "ocr", "-o", "json")) == document
    canary.end_time.GetCurrentTime()
    platform.fail("Tokens.List", *[grpc.StatusCode.PERMISSION_DENIED] * 2)
    later = shown(easel, "desc", "ocr")
    assert ("Canary" in later, later["Tokens"].startswith("not known: ")) == (False, True)


def test_start_wait_ends_at_zero(platform: Platform, easel: Easel, service: Service) -> None:
    """A service without replicas that would answer is running."""

    def at_zero(service: Service) -> None:
        service.MergeFrom(Service(status="Running", reason="ScaledToZero"))
        service.total_instance = 0

    platform.path["ocr"] = ["Starting", at_zero]

    result = easel("start", "ocr", "--wait", "--timeout", "30")

    assert result.exit_code == 0
    assert "Service is running, without replicas until a request comes" in result.stderr


def test_predict_verbose_tells_how_it_was_held(easel: Easel) -> None:
    """Status, headers, and what they mean on stderr; the body alone on stdout."""
    result = easel("predict", "ocr", "--path", "held", "-v")

    assert (result.exit_code, result.stdout) == (0, "{}")
    assert "HTTP 200\n" in result.stderr
    assert "  easel-queue-position: 3\n" in result.stderr
    assert "the request waited for a replica, as number 3 in the queue, 1.2 s expected" in result.stderr
    assert "HTTP" not in easel("predict", "ocr", "--path", "held").stderr


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("full", ["2 of 2 requests wait for a replica of ocr already (HoldQueueFull)", "Retry-After: 12 s"]),
        ("late", ["metadata.rpc.keepalive = 5000 ms", "as number 3 in the queue, 1.2 s expected",
                  "easel modify ocr -Dmetadata.rpc.keepalive="]),
    ],
)  # fmt: skip
def test_predict_of_a_request_that_was_not_held_to_the_end(easel: Easel, path: str, says: list[str]) -> None:
    """The server's reason, when to come again, and the limit that cut it."""
    result = easel("predict", "ocr", "--path", path)

    assert result.exit_code == 1
    assert [part for part in says if part not in result.stderr] == []


def test_explain_shows_every_line_of_a_part(platform: Platform, easel: Easel) -> None:
    """Code, sentence and hint of each, whatever parts have learnt to say."""
    platform.explanations["router"] = [
        Why(code="Holding", message="12 requests wait; the first for 1.2 s", hint="`easel desc ocr`"),
        Why(code="ColdStart", message="schedule 0.1 s, start 2.0 s (median of 4)"),
    ]

    text = easel("explain", "ocr").stdout

    assert "router\n  Holding: 12 requests wait; the first for 1.2 s\n      → `easel desc ocr`\n" in text
    assert "  ColdStart: schedule 0.1 s, start 2.0 s (median of 4)\n" in text
