"""Frames, points, filters, webhooks: the monitor's rules on hand-made data."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from easel_contracts import facts
from easel_contracts.errors import InvalidInput
from easel_contracts.facts import Cause, Fact, TrafficState
from easel_monitor.decide import cell, events, explain, frames, histogram, point, webhooks
from easel_monitor.decide.cell import Cell, Usage, cell_of
from easel_monitor.decide.events import Stored
from easel_monitor.decide.frames import ClusterSeen, Report
from easel_monitor.rings import History, Ring

KEY = ("default", "ocr")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def report(
    envoy: str, at: float = 100.0, *, ok: int = 0, active: int = 0, pending: int = 0, healthy: int = 0
) -> Report:
    seen = ClusterSeen(requests=(0, ok, 0, 0, 0), active=active, pending=pending, healthy=healthy)
    return Report(envoy=envoy, at_unix_s=at, interval_s=1.0, services={KEY: seen})


def test_envoys_add_up_but_endpoints_do_not() -> None:
    """Requests and in-flight of two Envoys are added; both see the same replicas."""
    both = [report("a", ok=3, active=2, pending=1, healthy=2), report("b", ok=4, active=1, healthy=2)]

    (seen,) = frames.combine(both, 100.0)

    assert (seen.requests_by_code, seen.in_flight, seen.replicas_ready) == ({"2xx": 7}, 4, 2)


def test_zero_traffic_is_told_and_nobody_is_not() -> None:
    """An Envoy without traffic says zero; without any Envoy nothing is said."""
    (seen,) = frames.combine([report("a", healthy=1)], 100.0)

    assert (seen.requests_by_code, sum(seen.latency_counts)) == ({}, 0)
    assert frames.combine([], 100.0) == []


def test_a_late_envoy_keeps_its_gauges_for_a_while() -> None:
    """In-flight requests of an Envoy whose report is late stand for it; its counters are not counted again."""
    late = report("a", at=100.0, ok=5, active=3, healthy=1)

    kept = frames.gauges_of(late, 101.5)

    assert kept is not None
    assert kept.services[KEY] == ClusterSeen(active=3, healthy=1)
    assert frames.gauges_of(late, 104.0) is None


def test_a_frame_waits_for_every_live_envoy() -> None:
    """One report of two live Envoys is no frame yet."""
    assert not frames.is_complete({"a"}, {"a", "b"})
    assert frames.is_complete({"a", "b"}, {"a", "b"})
    assert not frames.is_complete(set(), set())


def test_unknown_is_not_zero() -> None:
    """A second that neither Envoy nor agent told about has no rate, latency or usage; replicas come from facts."""
    read = point.point(cell_of(None, None, 2, 100.0))

    assert (read.qps, read.in_flight, read.latency_p99_ms, read.cpu_cores, read.memory_mib) == (None,) * 5
    assert (read.replicas_ready, read.replicas_total) == (None, 2)


def test_means_weigh_by_time() -> None:
    """A window's rates are over the seconds that Envoy covered, not over those in which nobody told anything."""
    (seen,) = frames.combine([report("a", ok=10, active=4)], 100.0)
    quiet = cell_of(None, Usage(0.5, 100.0), 1, 101.0)

    total = point.summary([cell_of(seen, None, 1, 100.0), quiet])

    assert total is not None
    read = point.point(total)
    assert (read.qps, read.in_flight, read.cpu_cores, read.memory_mib) == (10.0, 4.0, 0.5, 100.0)
    assert point.summary([]) is None


def test_the_rings_keep_seconds_and_tens_and_forget_the_rest() -> None:
    """Five minutes of seconds, an hour of tens; a slot used again holds nothing of its old time."""
    history = History()
    for second in range(10_000, 14_500):
        history.put(Cell(start_s=second, interval_s=1.0, requests=(0, 1, 0, 0, 0), span_s=1.0))
    history.put(Cell(start_s=14_500, interval_s=1.0, span_s=1.0))

    seconds, tens = history.window(14_501, 60), history.window(14_499, 3600)

    assert [c.start_s for c in seconds] == list(range(14_441, 14_501))
    assert seconds[-1].requests == (0, 0, 0, 0, 0)
    assert len(tens) == 360
    assert all(c.requests == (0, 10, 0, 0, 0) and c.interval_s == 10.0 for c in tens)
    assert history.window(20_000, 3600) == []


def test_refusals_are_kept_as_long_as_their_span() -> None:
    """Summed in a slot, and gone with it."""
    ring = Ring(10, 3)
    for start in (101, 105):
        ring.put(Cell(start_s=start, interval_s=1.0, refused=(0, 2, 1, 0, 0)))
    (kept,) = ring.between(100, 110)
    ring.put(Cell(start_s=130, interval_s=1.0))

    assert kept.refused == (0, 4, 2, 0, 0)
    assert [cell.refused for cell in ring.between(110, 140)] == [(0, 0, 0, 0, 0)]
    assert point.point(kept).refused_by_code == {"429": 2.0, "450": 1.0}


def test_an_idle_service_is_cheap() -> None:
    """Counters are allocated at the first request; the README states the sizes."""
    history = History()
    history.put(Cell(start_s=100, interval_s=1.0))
    idle = history.memory_bytes()
    history.put(Cell(start_s=101, interval_s=1.0, requests=(0, 1, 0, 0, 0)))

    assert idle < 30 * 1024
    assert history.memory_bytes() < 150 * 1024


def known(of: Cell | None, envoys: int = 1) -> explain.Known:
    return explain.Known(
        service="ocr", window_s=60, cell=of, envoys=envoys, envoy_silence_s=0.4 if envoys else None, rejected=0,
        answered_by_envoy=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("of", "envoys", "codes"),
    [
        (None, 0, ["NoEnvoy", "NoCluster", "NoUsage"]),
        (Cell(start_s=1, interval_s=1.0), 1, ["EnvoyReports", "NoTraffic", "NoUsage"]),
        (Cell(start_s=1, interval_s=1.0, requests=(0, 1, 0, 1, 0), timeouts=1, retries=1, usage_s=1.0), 1,
         ["EnvoyReports", "Traffic", "Timeouts", "Retries"]),
        (Cell(start_s=1, interval_s=1.0, refused=(0, 3, 0, 1, 9), usage_s=1.0), 1,
         ["EnvoyReports", "NoTraffic", "Refused"]),
    ],
)  # fmt: skip
def test_explain_says_what_is_missing(of: Cell | None, envoys: int, codes: list[str]) -> None:
    """No Envoy, no cluster, no traffic and no agent are four different answers."""
    assert [line.code for line in explain.explain(known(of, envoys))] == codes


def fact(message: str = "done") -> Fact:
    return Fact(
        id="0190", entity="traffic", verb="drained", workspace="default", key="ocr", epoch=1, generation=2,
        row_version=3, at=AT, cause=Cause(actor="router", reason="Drained", message=message, traceparent="00-1-2-01"),
        data=facts.raw(TrafficState(service="ocr", replica="ocr-1-aaaaa")),
    )  # fmt: skip


def stored(payload: bytes, error: str = "") -> Stored:
    return Stored(sequence=7, subject="easel.fact.default.traffic.ocr.drained", at=AT, payload=payload, error=error)


def test_an_event_shows_the_whole_state() -> None:
    """data_json holds what the fact carried, fields unknown to this version too."""
    state = {**msgspec.to_builtins(TrafficState(service="ocr", replica="r")), "new_field": 1}
    newer = msgspec.structs.replace(fact(), data=msgspec.Raw(msgspec.msgpack.encode(state)))

    seen = events.view(stored(facts.encode(newer)))

    assert (seen.sequence, seen.type, seen.reason, seen.traceparent) == (7, "traffic.drained", "Drained", "00-1-2-01")
    assert msgspec.json.decode(seen.data_json)["new_field"] == 1


def test_an_unreadable_letter_is_still_shown() -> None:
    """A dead letter that nobody can read is an event with its error."""
    seen = events.view(stored(b"\xff", "control: cannot be read"))

    assert (seen.type, seen.error) == ("unreadable", "control: cannot be read")
    assert events.is_wanted(stored(b"\xff"), events.filter_of("", "node", "n1"))
    assert not events.is_wanted(stored(facts.encode(fact())), events.filter_of("", "node", ""))


@pytest.mark.parametrize(
    ("entity", "key", "subject"),
    [
        ("", "", "easel.fact.default.*.*.*"),
        ("node", "", "easel.fact.default.node.*.*"),
        ("replica", "ocr", "easel.fact.default.replica.ocr.*"),
    ],
)
def test_filters_are_subjects(entity: str, key: str, subject: str) -> None:
    """The server filters, not we."""
    assert events.filter_of("", entity, key).subject == subject


def test_a_wrong_filter_names_every_field() -> None:
    """Wildcards and unknown entities are refused, all at once."""
    with pytest.raises(InvalidInput) as wrong:
        events.filter_of("a.b", "nodes", ">")

    assert [f.path for f in wrong.value.fields] == ["entity", "workspace", "key"]


def test_the_signature_is_standard_webhooks() -> None:
    """The example of the Standard Webhooks specification's libraries verifies."""
    signature = webhooks.sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_cloud_event_has_what_the_specification_asks_for() -> None:
    """Required attributes are there, the body carries no secret and names the fact's place in the stream."""
    event = msgspec.json.decode(webhooks.cloud_event(fact(), 42))

    assert {k: event[k] for k in ("specversion", "id", "source", "type", "subject", "time")} == {
        "specversion": "1.0",
        "id": "0190",
        "source": "/easel/default/traffic",
        "type": "easel.traffic.drained",
        "subject": "ocr",
        "time": "2026-01-01T00:00:00Z",
    }
    assert event["sequence"].endswith("42")
    assert event["data"]["state"]["replica"] == "ocr-1-aaaaa"


def test_pauses_grow_and_stay_bounded() -> None:
    """1, 2, 4 ... seconds, never more than five minutes."""
    assert [webhooks.back_off_s(n) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert webhooks.back_off_s(10_000) == 300


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "fd00:ec2::254", "0.0.0.0", "224.0.0.1"]
)
def test_addresses_that_nobody_receives_on_are_refused(address: str) -> None:
    """Metadata services, link-local, any and multicast addresses."""
    assert webhooks.refusal(address, allow_link_local=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.0.2.7", "2001:db8::1"])
def test_receivers_beside_us_are_allowed(address: str) -> None:
    """Loopback and private networks are where receivers usually run."""
    assert webhooks.refusal(address, allow_link_local=False) is None


@pytest.mark.parametrize(
    "url", ["", "ftp://h/x", "http://", "http://u:p@h/", "http://h:99999/", "http://" + "h" * 3000]
)
def test_urls_that_cannot_be_called_are_refused(url: str) -> None:
    """The field is named."""
    with pytest.raises(InvalidInput) as wrong:
        webhooks.check_url(url)

    assert wrong.value.fields[0].path == "url"


def test_cells_of_one_second_merge() -> None:
    """What Envoy and the agents told of a second is one cell."""
    (seen,) = frames.combine([report("a", ok=1, healthy=1)], 100.7)
    one = cell_of(seen, Usage(1.0, 50.0), 1, 100.7)

    assert (one.start_s, one.interval_s, one.usage_s, one.span_s) == (100, 1.0, 1.0, 1.0)
    assert cell.merge(one, Cell(start_s=99)).start_s == 99
    assert one.latency == histogram.EMPTY
