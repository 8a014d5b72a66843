"""What Envoy counts and whom it tells, once a second. Pure: values in, parts of the bootstrap out."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TYPE = "type.googleapis.com/envoy."
HISTOGRAM_BUCKETS_MS = (
    0.5, 1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 40, 50, 70, 100, 140, 200, 300, 400, 500, 700,
    1000, 1400, 2000, 3000, 4000, 5000, 7000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000,
)  # fmt: skip
"""Upper bounds of the latency histograms (upstream_rq_time), milliseconds."""

METRICS = (
    r"^cluster\.[^.]+\.(upstream_rq_(active|time|pending_active|pending_overflow|timeout|per_try_timeout|retry"
    r"|504|[1-5]xx)|membership_healthy)$"
)
"""Which statistics exist at all: what the monitor needs, and what costs little."""
_OWN_METRICS = (
    r"^(server\.(live|state)"
    r"|http\.data\.(downstream_rq_([1-5]xx|active|idle_timeout)|downstream_cx_active)"
    r"|easel\.local_reply\..*)$"
)


def sink(cluster: str, process_token: str) -> Json:
    """The monitor's metrics stream, by way of `cluster`."""
    service = {
        "envoy_grpc": {"cluster_name": cluster},
        "initial_metadata": [{"key": "easel-process-token", "value": process_token}],
    }
    return {
        "name": "envoy.stat_sinks.metrics_service",
        "typed_config": {
            "@type": _TYPE + "config.metrics.v3.MetricsServiceConfig",
            "grpc_service": service,
            "transport_api_version": "V3",
            "report_counters_as_deltas": True,
            "emit_tags_as_labels": True,
            "histogram_emit_mode": "HISTOGRAM",
        },
    }


def stats() -> Json:
    """Which statistics there are, and the buckets of the histograms."""
    patterns = [{"safe_regex": {"regex": pattern}} for pattern in (METRICS, _OWN_METRICS)]
    return {
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
        "histogram_bucket_settings": [
            {"match": {"safe_regex": {"regex": ".*"}}, "buckets": [float(b) for b in HISTOGRAM_BUCKETS_MS]}
        ],
    }
