"""Services, policies and samples as tests need them."""

from __future__ import annotations

from easel_autoscaler.decide.decision import Current
from easel_autoscaler.decide.load import Load, Waiting
from easel_contracts.facts import ServiceState
from easel_contracts.metrics import HoldMetrics, ServiceMetrics
from easel_contracts.spec import Autoscaling, Resources, RevisionSpec


def policy(low: int = 1, high: int = 10, up_s: float = 0.0, down_s: float = 300.0, **targets: float) -> Autoscaling:
    """An autoscaler section; without targets: qps 10."""
    pairs = tuple(targets.items()) or (("qps", 10.0),)
    return Autoscaling(min=low, max=high, targets=pairs, scale_up_window_s=up_s, scale_down_window_s=down_s)


def from_zero(high: int = 10, grace_s: float = 60.0, first: int = 1, down_s: float = 300.0,
              **targets: float) -> Autoscaling:  # fmt: skip
    """An autoscaler section with min 0; without targets: concurrency 2."""
    pairs = tuple(targets.items()) or (("concurrency", 2.0),)
    return Autoscaling(min=0, max=high, targets=pairs, scale_down_window_s=down_s, zero_grace_s=grace_s,
                       activation_replicas=first)  # fmt: skip


def service(autoscaling: Autoscaling | None = None, **changes: object) -> ServiceState:
    """A running service named ocr."""
    fields: dict[str, object] = {
        "uid": "u1", "name": "ocr", "generation": 1, "wanted": "running", "instance": 1,
        "revision": RevisionSpec(number=1, resources=Resources(cpu=1, memory_mib=100), port=8000),
        "autoscaling": autoscaling, "autoscaling_generation": 1, "instance_generation": 1, **changes,
    }  # fmt: skip
    return ServiceState(**fields)  # type: ignore[arg-type]


def current(wanted: int, generation: int = 1, number: int = 1, uid: str = "u1") -> Current:
    """The decision in force."""
    return Current(uid=uid, generation=generation, number=number, wanted=wanted, row_version=number)


def load(ready: int, **per_replica: float) -> Load:
    """A load, given per ready replica."""
    return Load(totals={metric: value * ready for metric, value in per_replica.items()}, ready=ready)


def waiting(held: int, ready: int = 0, oldest_s: float = 0.02, **totals: float) -> Load:
    """A load of which `held` requests wait."""
    return Load(totals=totals, ready=ready, waiting=Waiting(held, oldest_s))


def hold(held: int, oldest_s: float = 0.02) -> HoldMetrics:
    """What the router says of requests for ocr that wait."""
    return HoldMetrics(workspace="default", service="ocr", at_unix_s=0.0, held=held, oldest_s=oldest_s)


def second(
    at_unix_s: float, *, requests: int = 0, in_flight: int = 0, ready: int = 1, interval_s: float = 1.0
) -> ServiceMetrics:
    """One second of ocr."""
    return ServiceMetrics(
        workspace="default", service="ocr", at_unix_s=at_unix_s, interval_s=interval_s,
        requests_by_code={"2xx": requests}, in_flight=in_flight, latency_buckets_ms=(), latency_counts=(0,),
        retries=0, timeouts=0, replicas_ready=ready,
    )  # fmt: skip
