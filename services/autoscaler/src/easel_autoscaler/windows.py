"""The last seconds of every service's metrics, in memory. Holds data, decides nothing.

Every copy of the autoscaler keeps all services, leased or not: whoever takes over a lease knows the load already.
"""

from __future__ import annotations

from collections import deque

from easel_autoscaler.decide.load import WINDOW_S, Load, Sample, Wait, measure
from easel_contracts.metrics import HoldMetrics, ServiceMetrics

SAMPLES = 64
"""Kept per service: several copies of the monitor may speak, one second each."""
FORGET_S = 2 * max(WINDOW_S.values())


class Windows:
    """Samples and messages about waiting requests, by service."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[Sample]] = {}
        self._waits: dict[str, deque[Wait]] = {}

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

    def add_waiting(self, metrics: HoldMetrics, now_s: float) -> None:
        """Takes what was said about requests that wait."""
        waits = self._waits.setdefault(metrics.service, deque(maxlen=SAMPLES))
        waits.append(Wait(at_s=now_s, held=metrics.held, oldest_s=metrics.oldest_s))

    def awaited(self, now_s: float) -> list[str]:
        """Services that requests wait for now."""
        return [name for name in self._waits if (load := self.load(name, now_s)) and load.waiting]

    def load(self, service: str, now_s: float) -> Load | None:
        """The load now; None: not known."""
        return measure(self._samples.get(service, ()), self._waits.get(service, ()), now_s)

    def forget(self, service: str) -> None:
        """Drops what was heard of a name."""
        self._samples.pop(service, None)
        self._waits.pop(service, None)

    def forget_silent(self, now_s: float) -> None:
        """Drops services that were not heard of for a while, so that memory does not grow with names ever used."""
        oldest_s = now_s - FORGET_S
        for name in [n for n, samples in self._samples.items() if samples[-1].at_s < oldest_s]:
            del self._samples[name]
        for name in [n for n, waits in self._waits.items() if waits[-1].at_s < oldest_s]:
            del self._waits[name]

    def __len__(self) -> int:
        return len(self._samples)
