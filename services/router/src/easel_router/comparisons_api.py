"""easel.v1.Comparisons: what the answers to mirrored requests were; and the same for control's canaries."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from easel_contracts.errors import NotFound
from easel_proto.internal.v1 import router_pb2_grpc
from easel_proto.v1 import mirrors_pb2, mirrors_pb2_grpc
from easel_router.comparisons import Comparisons, Report
from easel_router.decide.rates import excess
from easel_router.decide.report import Example, Field, most_differing, p50_ms, verdict
from easel_router.model import Known

_OFF = "answers are not compared: `easel mirror` with --compare starts it"


class ComparisonsApi(mirrors_pb2_grpc.ComparisonsServicer):
    """Reads, and forgets."""

    def __init__(self, known: Known, comparisons: Comparisons) -> None:
        self._known, self._comparisons = known, comparisons

    async def Report(self, request: mirrors_pb2.ReportRequest, context: object) -> mirrors_pb2.ComparisonReport:
        """The report about the present sides; where nothing is compared now, the last one."""
        self._exists(request.name)
        return self._told(request.name)

    async def Reset(self, request: mirrors_pb2.ReportRequest, context: object) -> mirrors_pb2.ComparisonReport:
        """Begins anew."""
        self._exists(request.name)
        self._comparisons.reset(request.name)
        return self._told(request.name)

    def _exists(self, name: str) -> None:
        if name not in self._known.services:
            raise NotFound("NO_SUCH_SERVICE", f"there is no service {name}", "`easel ls` lists all")

    def _told(self, name: str) -> mirrors_pb2.ComparisonReport:
        report = self._comparisons.report(name)
        if report is None:
            return mirrors_pb2.ComparisonReport(name=name, verdict="not_enough_data", message=_OFF)
        made = to_proto(name, report)
        if self._comparisons.sides(name) is None:
            made.message += "; nothing is compared now"
        return made


class ComparedApi(router_pb2_grpc.ComparedServicer):
    """The same report for Easel's own processes, which have no access key."""

    def __init__(self, api: ComparisonsApi) -> None:
        self._api = api

    async def Report(self, request: mirrors_pb2.ReportRequest, context: object) -> mirrors_pb2.ComparisonReport:
        """As users see it."""
        return await self._api.Report(request, context)


def to_proto(name: str, report: Report) -> mirrors_pb2.ComparisonReport:
    """A report as it is told."""
    tally = report.tally
    found, low, high = excess(tally.differ, tally.samples, tally.itself, tally.twice)
    told, why = verdict(tally)
    since = Timestamp()
    since.FromDatetime(report.since)
    return mirrors_pb2.ComparisonReport(
        name=name, target=report.sides.target, since=since, samples=tally.samples, differ=tally.differ,
        twice=tally.twice, differ_from_itself=tally.itself, not_compared=tally.not_compared,
        excess=found, excess_low=low, excess_high=high,
        fields=[_field(path, field) for path, field in most_differing(tally)],
        stable_p50_ms=p50_ms(tally.stable_ms), candidate_p50_ms=p50_ms(tally.candidate_ms),
        verdict=told, message=why,
    )  # fmt: skip


def _field(path: str, field: Field) -> mirrors_pb2.FieldDifference:
    return mirrors_pb2.FieldDifference(
        path=path, differ=field.differ, differ_from_itself=field.itself,
        examples=[_example(example) for example in reversed(field.examples)],
    )  # fmt: skip


def _example(example: Example) -> mirrors_pb2.DifferenceExample:
    at = Timestamp()
    at.FromNanoseconds(round(example.at_unix_s * 1e9))
    return mirrors_pb2.DifferenceExample(
        request=example.request, stable=example.stable, candidate=example.candidate, at=at
    )
