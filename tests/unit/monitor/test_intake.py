"""Envoy's messages: what is read from them, and that our reduced .proto means the same as Envoy's own."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor

from easel_monitor import envoy_metrics_pb2 as pb
from easel_monitor.decide import histogram
from easel_monitor.intake import Reader, service_of
from easel_router.statistics import HISTOGRAM_BUCKETS_MS
from tests.unit.router.embedded import pool

KEY = ("default", "ocr")


def add(message: pb.StreamMetricsMessage, name: str, at_ms: int = 1000, /, **labels: str) -> pb.Metric:
    metric = message.envoy_metrics.add(name=name).metric.add(timestamp_ms=at_ms)
    for key, value in labels.items():
        metric.label.add(name=key.replace("__", "."), value=value)
    return metric


def counter(message: pb.StreamMetricsMessage, name: str, value: int, **labels: str) -> None:
    add(message, name, **labels).counter.value = value


def read(message: pb.StreamMetricsMessage) -> dict[tuple[str, str], object]:
    return dict(Reader(service_of("default")).read(message.SerializeToString(), 1.0, "a").services)


def test_clusters_of_a_service_are_one() -> None:
    """`ocr`, `ocr|grpc` and `ocr~2` add up; other clusters are not services."""
    message = pb.StreamMetricsMessage()
    for cluster in ("ocr", "ocr|grpc", "ocr~2", "-", "x"):
        counter(message, "cluster.upstream_rq_xx", 2, envoy__cluster_name=cluster, envoy__response_code_class="2")

    (seen,) = read(message).items()

    assert seen[0] == KEY
    assert seen[1].requests == (0, 6, 0, 0, 0)  # type: ignore[attr-defined]


def test_an_expired_limit_is_a_408_however_envoy_charges_it() -> None:
    """A 504 that a try's limit made, and a silent stream's end that no cluster was charged with, are both 4xx."""
    message = pb.StreamMetricsMessage()
    counter(message, "cluster.upstream_rq_xx", 5, envoy__cluster_name="ocr", envoy__response_code_class="5")
    counter(message, "cluster.upstream_rq", 3, envoy__cluster_name="ocr", envoy__response_code="504")
    counter(message, "cluster.upstream_rq_per_try_timeout", 2, envoy__cluster_name="ocr")
    counter(message, "easel.local_reply", 4, service="ocr", code="408", via="stream_idle_timeout")
    counter(message, "easel.local_reply", 9, service="ocr", code="401", via="lua_response")
    counter(message, "easel.local_reply", 7, service="ocr", code="404", via="via_upstream")

    seen = read(message)[KEY]

    assert seen.requests == (0, 0, 0, 6, 3)  # type: ignore[attr-defined]
    assert (seen.timeouts, seen.rejected) == (6, 9)  # type: ignore[attr-defined]


def test_refusals_are_known_by_code() -> None:
    """Of Envoy's own answers; a model's 429 or 503 is its answer. Who left before an answer is 499; a refused gRPC call
    has 200."""
    message = pb.StreamMetricsMessage()
    told = {"408": "response_timeout", "429": "local_rate_limited", "450": "reached_concurrency_limit",
            "0": "downstream_remote_disconnect", "503": "no_healthy_upstream", "401": "lua_response"}  # fmt: skip
    for number, (code, via) in enumerate(told.items(), 1):
        counter(message, "easel.local_reply", number, service="ocr", code=code, via=via)
    for code in ("429", "503", "200"):
        counter(message, "easel.local_reply", 50, service="ocr", code=code, via="via_upstream")
    counter(message, "easel.local_reply", 10, service="ocr", code="200", via="local_rate_limited")

    seen = read(message)[KEY]

    assert seen.refused == (1, 12, 3, 4, 5)  # type: ignore[attr-defined]
    assert seen.requests == (0, 0, 0, 0, 0)  # type: ignore[attr-defined]


def test_the_interval_is_between_messages() -> None:
    """The first report covers Envoy's flush interval, each next one the time since the last."""
    reader = Reader(service_of("default"))
    intervals = []
    for at_ms in (5_000, 6_010, 9_000):
        message = pb.StreamMetricsMessage()
        add(message, "cluster.membership_healthy", at_ms, envoy__cluster_name="ocr").gauge.value = 1
        intervals.append(reader.read(message.SerializeToString(), 1.0, "a").interval_s)

    assert intervals == [1.0, 1.01, 2.99]


def test_envoy_is_asked_for_the_buckets_that_are_kept() -> None:
    """Otherwise each count would be moved up to the next bound."""
    assert tuple(float(b) for b in HISTOGRAM_BUCKETS_MS) == tuple(float(b) for b in histogram.BOUNDS_MS)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("StreamMetricsMessage", "envoy.service.metrics.v3.StreamMetricsMessage"),
        ("Node", "envoy.config.core.v3.Node"),
        ("MetricFamily", "io.prometheus.client.MetricFamily"),
        ("Metric", "io.prometheus.client.Metric"),
        ("LabelPair", "io.prometheus.client.LabelPair"),
        ("Gauge", "io.prometheus.client.Gauge"),
        ("Counter", "io.prometheus.client.Counter"),
        ("Histogram", "io.prometheus.client.Histogram"),
        ("Bucket", "io.prometheus.client.Bucket"),
    ],
)
def test_our_proto_is_a_part_of_envoys(ours: str, theirs: str) -> None:
    """Each field has the name, number, type and label of the definition inside the Envoy binary."""
    known = pool().FindMessageTypeByName(theirs).fields_by_name
    descriptor: Descriptor = pb.DESCRIPTOR.message_types_by_name[ours]

    for field in descriptor.fields:
        found = known[field.name]
        assert (field.number, field.type) == (found.number, found.type), field.full_name
