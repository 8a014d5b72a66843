"""Envoy's metrics messages as frozen reports. Reads only what the monitor keeps; everything else costs a look-up.

What is counted: final answers of routed requests per service, by class, as the client saw them (a 503 "no
healthy upstream" included; attempts that were retried are not; an expired time limit is the 408 that the client
got), and all answers per listener (`answered`), so that what Envoy refuses by itself (401, 404, 429, 450) is their
difference, for all services together. Where the router counts them (LOCAL_REPLY), rejections are known per service;
they are no load, so they stay out of the service's requests. What limits refuse is known by its exact code too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from easel_contracts import ids
from easel_contracts.metrics import REFUSALS
from easel_monitor.decide import histogram
from easel_monitor.decide.frames import ClusterSeen, Report, add
from easel_monitor.envoy_metrics_pb2 import Histogram, Metric, MetricFamily, StreamMetricsMessage

ServiceOf = Callable[[str], tuple[str, str] | None]
"""Cluster name → (workspace, service); None: not a model service's cluster."""

CLUSTER = "envoy.cluster_name"
CODE_CLASS = "envoy.response_code_class"
CODE = "envoy.response_code"
LISTENER_CODES = "http.downstream_rq_xx"
LISTENER = "envoy.http_conn_manager_prefix"
DATA_LISTENER = "data"
"""stat_prefix of the listener that clients of services call."""

_SUFFIX = re.compile(r"[|~]")
SERVICE = "service"
LOCAL_REPLY = "easel.local_reply"
"""The router's counter of answers >= 400 on the data listener, with the tags service, code and via."""
LEFT = "0"
"""Code of a request whose caller left before anything was answered: 499 to whoever reads."""
LIMITED = frozenset({"local_rate_limited", "reached_concurrency_limit"})
"""Causes by which a gRPC call was refused, whose code is 200 whatever happens."""
REJECTIONS = frozenset({"400", "401", "403", "404", "405", "413", "429", "431", "450"})
"""Codes by which Envoy itself turns a request away before any replica is tried."""

USUAL_INTERVAL_S = 1.0
"""Envoy's flush interval: what a stream's first report covers."""


def service_of(workspace: str) -> ServiceOf:
    """The router's way of naming: `<service>`, and `<service>|grpc` or `<service>~...` for its further clusters."""

    def find(cluster: str) -> tuple[str, str] | None:
        name = _SUFFIX.split(cluster, maxsplit=1)[0]
        return (workspace, name) if ids.SERVICE_NAME.match(name) else None

    return find


class _Cluster:
    """A cluster's numbers while a message is read."""

    __slots__ = (
        "active",
        "expired_504",
        "healthy",
        "latency",
        "pending",
        "refused",
        "rejected",
        "requests",
        "retries",
        "silent",
        "timeouts",
    )

    def __init__(self) -> None:
        self.requests = [0, 0, 0, 0, 0]
        self.retries = self.timeouts = self.expired_504 = self.silent = self.rejected = 0
        self.refused = [0, 0, 0, 0, 0]
        self.active = self.pending = self.healthy = 0
        self.latency = histogram.EMPTY

    def seen(self) -> ClusterSeen:
        """As the client saw it: the router answers 408 where a try ran into the time limit.

        Envoy charges the cluster with a 504 when the limit of a try did it, and with nothing when the limit on a
        silent stream did. Both become one 4xx.
        """
        a, b, c, d, e = self.requests
        charged = min(self.timeouts, self.expired_504, e)
        return ClusterSeen(
            requests=(a, b, c, d + charged + self.silent, e - charged),
            retries=self.retries,
            timeouts=self.timeouts + self.silent,
            rejected=self.rejected,
            refused=(self.refused[0], self.refused[1], self.refused[2], self.refused[3], self.refused[4]),
            active=self.active,
            pending=self.pending,
            healthy=self.healthy,
            latency=self.latency,
        )


class Reader:
    """Reads one Envoy's stream; remembers the last message's time to know what interval the next one covers."""

    def __init__(self, service_of: ServiceOf) -> None:
        self._service_of = service_of
        self._last_ms = 0
        self.node = ""

    def read(self, raw: bytes, at_unix_s: float, envoy: str) -> Report:
        """One message; raises google.protobuf.message.DecodeError when it is none."""
        message = StreamMetricsMessage.FromString(raw)
        if message.identifier.node.id:
            self.node = message.identifier.node.id
        clusters: dict[str, _Cluster] = {}
        answered: dict[str, int] = {}
        sent_ms = 0
        for family in message.envoy_metrics:
            take = _TAKE.get(family.name)
            if take is None:
                _answers(family, answered)
                continue
            by = SERVICE if family.name == LOCAL_REPLY else CLUSTER
            for metric in family.metric:
                sent_ms = metric.timestamp_ms
                labels = _labels(metric)
                cluster = labels.get(by)
                if cluster is not None:
                    take(clusters.get(cluster) or clusters.setdefault(cluster, _Cluster()), metric, labels)
        return Report(
            envoy=envoy,
            at_unix_s=at_unix_s,
            interval_s=self._interval(sent_ms),
            services=self._by_service(clusters),
            answered=answered,
        )

    def _by_service(self, clusters: Mapping[str, _Cluster]) -> dict[tuple[str, str], ClusterSeen]:
        found: dict[tuple[str, str], ClusterSeen] = {}
        for name, cluster in clusters.items():
            service = self._service_of(name)
            if service is None:
                continue
            before = found.get(service)
            found[service] = cluster.seen() if before is None else add(before, cluster.seen())
        return found

    def _interval(self, sent_ms: int) -> float:
        before, self._last_ms = self._last_ms, sent_ms or self._last_ms
        if not before or sent_ms <= before:
            return USUAL_INTERVAL_S
        return (sent_ms - before) / 1000


def _labels(metric: Metric) -> dict[str, str]:
    return {pair.name: pair.value for pair in metric.label}


def _answers(family: MetricFamily, answered: dict[str, int]) -> None:
    """Adds what the data listener answered, by class."""
    if family.name != LISTENER_CODES:
        return
    for metric in family.metric:
        labels = _labels(metric)
        if labels.get(LISTENER) == DATA_LISTENER:
            code = f"{labels.get(CODE_CLASS, '?')}xx"
            answered[code] = answered.get(code, 0) + round(metric.counter.value)


def _code(of: _Cluster, metric: Metric, labels: Mapping[str, str]) -> None:
    code = labels.get(CODE_CLASS, "")
    if code in _CODE_INDEX:
        of.requests[_CODE_INDEX[code]] += round(metric.counter.value)


def _exact_code(of: _Cluster, metric: Metric, labels: Mapping[str, str]) -> None:
    if labels.get(CODE) == "504":
        of.expired_504 += round(metric.counter.value)


def _local_reply(of: _Cluster, metric: Metric, labels: Mapping[str, str]) -> None:
    via, code = labels.get("via", ""), labels.get("code", "")
    if code == "200" and via in LIMITED:
        code = "429"
    if not via.startswith("via_upstream") and (index := _REFUSAL_INDEX.get(code)) is not None:
        of.refused[index] += round(metric.counter.value)
    if via.startswith("stream_idle_timeout"):
        of.silent += round(metric.counter.value)
    elif not via.startswith("via_upstream") and code in REJECTIONS:
        of.rejected += round(metric.counter.value)


def _retry(of: _Cluster, metric: Metric, labels: Mapping[str, str]) -> None:
    of.retries += round(metric.counter.value)


def _timeout(of: _Cluster, metric: Metric, labels: Mapping[str, str]) -> None:
    of.timeouts += round(metric.counter.value)


def _active(of: _Cluster, metric: Metric, labels: Mapping[str, str]) -> None:
    of.active = round(metric.gauge.value)


def _pending(of: _Cluster, metric: Metric, labels: Mapping[str, str]) -> None:
    of.pending = round(metric.gauge.value)


def _healthy(of: _Cluster, metric: Metric, labels: Mapping[str, str]) -> None:
    of.healthy = round(metric.gauge.value)


def _time(of: _Cluster, metric: Metric, labels: Mapping[str, str]) -> None:
    of.latency = histogram.merge(of.latency, latency(metric.histogram))


def latency(of: Histogram) -> tuple[int, ...]:
    """Envoy's histogram over our buckets."""
    if not of.sample_count:
        return histogram.EMPTY
    bounds = [bucket.upper_bound for bucket in of.bucket]
    cumulative = [bucket.cumulative_count for bucket in of.bucket]
    return histogram.from_cumulative(bounds, cumulative, of.sample_count)


_REFUSAL_INDEX = {LEFT if code == "499" else code: index for index, code in enumerate(REFUSALS)}
_CODE_INDEX = {"1": 0, "2": 1, "3": 2, "4": 3, "5": 4}
_TAKE: dict[str, Callable[[_Cluster, Metric, Mapping[str, str]], None]] = {
    "cluster.upstream_rq_xx": _code,
    "cluster.upstream_rq": _exact_code,
    LOCAL_REPLY: _local_reply,
    "cluster.upstream_rq_retry": _retry,
    "cluster.upstream_rq_timeout": _timeout,
    "cluster.upstream_rq_per_try_timeout": _timeout,
    "cluster.upstream_rq_active": _active,
    "cluster.upstream_rq_pending_active": _pending,
    "cluster.membership_healthy": _healthy,
    "cluster.upstream_rq_time": _time,
}
