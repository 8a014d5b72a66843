"""The last seconds of every service's metrics, in memory. Holds data, decides nothing.

Every copy of the autoscaler keeps all services, leased or not: whoever takes over a lease knows the load already.
"""

from __future__ import annotations

from collections import deque

from easel_autoscaler.decide.load import WINDOW_S, Load, Sample, measure
from easel_contracts.metrics import ServiceMetrics

SAMPLES = 64
"""Kept per service: several copies of the monitor may speak, one second each."""
FORGET_S = 2 * max(WINDOW_S.values())


class Windows:
    """Samples by service."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[Sample]] = {}

    def add(self, metrics: ServiceMetrics, now_s: float) -> None:
        """Takes one second of one service."""
        samples = self._samples.setdefault(metrics.service, deque(maxlen=SAMPLES))
        samples.append(
            Sample(
                at_s=now_s,
                interval_s=metrics.interval_s,
                requests=sum(metrics.requests_by_code.values()),
                in_flight=metrics.in_flight,
                ready=metrics.replicas_ready,
            )
        )

    def load(self, service: str, now_s: float) -> Load | None:
        """The load now; None: not known."""
        return measure(self._samples.get(service, ()), now_s)

    def forget_silent(self, now_s: float) -> None:
        """Drops services that were not heard of for a while, so that memory does not grow with names ever used."""
        for name in [n for n, samples in self._samples.items() if samples[-1].at_s < now_s - FORGET_S]:
            del self._samples[name]

    def __len__(self) -> int:
        return len(self._samples)
