"""How many requests each address has in flight, from Envoys' load reports; asked for only while something drains.

A report lists every address with a request in flight or finished in its interval: one that is absent has none.
Unknown is not zero: an Envoy that has not reported since the question is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.messages import seconds

_FAST_S = 0.1
_IDLE_S = 3600
_SURE_REPORTS = 2
"""The first report after a change may have been gathered before it."""

AddressKey = tuple[str, int]


class Reporter:
    """One Envoy's load stream."""

    def __init__(self, envoy: str) -> None:
        self.envoy = envoy
        self.reports = 0
        self.in_flight: dict[str, dict[AddressKey, int]] = {}
        """Cluster → address → requests, of the newest report."""
        self.questions: asyncio.Queue[bytes] = asyncio.Queue()
        self.reported = asyncio.Event()

    def ask(self, clusters: Collection[str]) -> None:
        """Which clusters to report from now on."""
        question = pb.LoadStatsResponse(
            clusters=sorted(clusters),
            load_reporting_interval=seconds(_FAST_S if clusters else _IDLE_S),
            report_endpoint_granularity=True,
        )
        self.questions.put_nowait(question.SerializeToString())

    def report(self, request: pb.LoadStatsRequest) -> None:
        """Takes a report."""
        self.reports += 1
        self.in_flight = {
            cluster.cluster_name: {
                (e.address.socket_address.address, e.address.socket_address.port_value): e.total_requests_in_progress
                for locality in cluster.upstream_locality_stats
                for e in locality.upstream_endpoint_stats
            }
            for cluster in request.cluster_stats
        }
        self.reported.set()
        self.reported = asyncio.Event()


class Loads:
    """The load streams of all Envoys."""

    def __init__(self) -> None:
        self._reporters: dict[str, Reporter] = {}
        self._watched: dict[str, int] = {}
        self._reporter_came = asyncio.Event()

    @contextmanager
    def reporter(self, envoy: str) -> Iterator[Reporter]:
        """Registers an Envoy's stream for as long as it lasts."""
        made = Reporter(envoy)
        self._reporters[envoy] = made
        made.ask(self._watched)
        self._reporter_came.set()
        self._reporter_came = asyncio.Event()
        try:
            yield made
        finally:
            if self._reporters.get(envoy) is made:
                del self._reporters[envoy]

    @contextmanager
    def watching(self, clusters: Collection[str]) -> Iterator[None]:
        """Asks every Envoy for fast reports of these clusters."""
        for cluster in clusters:
            self._watched[cluster] = self._watched.get(cluster, 0) + 1
        self._ask_all()
        try:
            yield
        finally:
            for cluster in clusters:
                self._watched[cluster] -= 1
                if not self._watched[cluster]:
                    del self._watched[cluster]
            self._ask_all()

    async def next_in_flight(self, envoy: str, clusters: Collection[str], address: AddressKey) -> int:
        """Requests at an address, by the second report of that Envoy from now on."""
        return (await self.next_by_address(envoy, clusters)).get(address, 0)

    async def next_by_address(self, envoy: str, clusters: Collection[str]) -> dict[AddressKey, int]:
        """Requests by address, by the second report of that Envoy from now on; an absent address has none."""
        reporter = self._reporters.get(envoy)
        while reporter is None:
            await self._reporter_came.wait()
            reporter = self._reporters.get(envoy)
        wanted = reporter.reports + _SURE_REPORTS
        while reporter.reports < wanted:
            await reporter.reported.wait()
        found: dict[AddressKey, int] = {}
        for cluster in clusters:
            for address, requests in reporter.in_flight.get(cluster, {}).items():
                found[address] = found.get(address, 0) + requests
        return found

    def _ask_all(self) -> None:
        for reporter in self._reporters.values():
            reporter.ask(self._watched)
