"""One Envoy's delta stream: what is sent, what counts as acknowledged, what a refusal leads to."""

from __future__ import annotations

import asyncio

import pytest

from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.catalog import Catalog
from easel_router.xds.messages import CLUSTER, ENDPOINTS, ROUTE
from easel_router.xds.refusals import Refused, reason_of
from easel_router.xds.stream import Gone, Stream

NACK = pb.RpcStatus(code=3, message="bad")


def opened(catalog: Catalog, kind: str = ROUTE, **versions: str) -> Stream:
    stream = Stream(catalog)
    stream.introduce(pb.Node(id="envoy-0"))
    stream.receive(pb.DeltaDiscoveryRequest(type_url=kind, initial_resource_versions=versions))
    return stream


def sent(stream: Stream) -> pb.DeltaDiscoveryResponse:
    message = stream.due()
    assert message is not None
    return pb.DeltaDiscoveryResponse.FromString(message)


def answer(stream: Stream, message: pb.DeltaDiscoveryResponse, error: pb.RpcStatus | None = None) -> None:
    stream.receive(
        pb.DeltaDiscoveryRequest(type_url=message.type_url, response_nonce=message.nonce, error_detail=error)
    )


def names(message: pb.DeltaDiscoveryResponse) -> list[str]:
    return [r.name for r in message.resources]


def scope(name: str) -> bytes:
    return pb.ScopedRouteConfiguration(
        name=name, route_configuration=pb.RouteConfiguration(name=name)
    ).SerializeToString()


def test_an_empty_wildcard_is_answered() -> None:
    """Otherwise Envoy never becomes live."""
    assert names(sent(opened(Catalog()))) == []


def test_only_what_changed_is_sent_again() -> None:
    """On reconnect, equal versions are not repeated and vanished ones are removed."""
    catalog = Catalog()
    same = catalog.put(CLUSTER, "same", b"\x0a\x01a")
    catalog.put(CLUSTER, "new", b"\x0a\x01b")
    message = sent(opened(catalog, CLUSTER, same=str(same), gone="1"))

    assert names(message) == ["new"]
    assert list(message.removed_resources) == ["gone"]


def test_changes_are_coalesced() -> None:
    """Several changes of one name before it is sent are one."""
    catalog = Catalog()
    stream = opened(catalog)
    sent(stream)
    for n in range(5):
        catalog.put(ROUTE, "a", scope("a") + bytes([0x52, 1, n]))
    message = sent(stream)

    assert names(message) == ["a"]
    assert stream.due() is None


def test_a_changed_clusters_endpoints_are_sent_again() -> None:
    """After it, although they are as before: Envoy waits for them and does not ask; also after it was away."""
    catalog = Catalog()
    cluster, endpoints = catalog.put(CLUSTER, "a", b"\x0a\x01a"), catalog.put(ENDPOINTS, "a", b"\x0a\x01a")
    stream = opened(catalog, CLUSTER, a=str(cluster))
    stream.receive(
        pb.DeltaDiscoveryRequest(
            type_url=ENDPOINTS, resource_names_subscribe=["a"], initial_resource_versions={"a": str(endpoints)}
        )
    )
    while stream.due():
        pass
    catalog.put(CLUSTER, "a", b"\x0a\x01a\x28\x01")
    changed = [sent(stream), sent(stream)]
    back = opened(catalog, CLUSTER, a=str(cluster))
    again = [sent(back)]
    back.receive(
        pb.DeltaDiscoveryRequest(
            type_url=ENDPOINTS, resource_names_subscribe=["a"], initial_resource_versions={"a": str(endpoints)}
        )
    )
    again.append(sent(back))

    for messages in (changed, again):
        assert [(m.type_url, names(m)) for m in messages] == [(CLUSTER, ["a"]), (ENDPOINTS, ["a"])]
    assert stream.due() is None


async def test_acknowledged_waits_for_the_version() -> None:
    """An acknowledgement of an older version does not count."""
    catalog = Catalog()
    stream = opened(catalog)
    sent(stream)
    catalog.put(ROUTE, "a", scope("a"))
    older = sent(stream)
    version = catalog.put(ROUTE, "a", scope("b"))
    waiting = asyncio.create_task(stream.acknowledged({ROUTE: {"a": version}}))
    await asyncio.sleep(0)
    answer(stream, older)
    await asyncio.sleep(0)
    assert not waiting.done()
    answer(stream, sent(stream))

    await asyncio.wait_for(waiting, 1)


async def test_a_refused_message_is_sent_one_by_one() -> None:
    """Only the bad one is put aside; the good ones are sent with other bytes and are live."""
    catalog = Catalog()
    versions = {name: catalog.put(ROUTE, name, scope(name)) for name in ("a", "bad", "c")}
    stream = opened(catalog)
    first = sent(stream)
    answer(stream, first, NACK)
    seen = {}
    while (message := stream.due()) is not None:
        one = pb.DeltaDiscoveryResponse.FromString(message)
        seen[names(one)[0]] = one.resources[0].resource.value
        answer(stream, one, NACK if names(one) == ["bad"] else None)

    await stream.acknowledged({ROUTE: {"a": versions["a"], "c": versions["c"]}})
    with pytest.raises(Refused, match="bad"):
        await stream.acknowledged({ROUTE: {"bad": versions["bad"]}})
    assert seen["a"] != scope("a")
    assert pb.ScopedRouteConfiguration.FromString(seen["a"]).route_configuration.name.startswith("a~")
    assert stream.refusals() == {"bad": "bad"}


async def test_a_put_aside_resource_is_tried_again_when_it_changes() -> None:
    """Not before: it would be refused for ever."""
    catalog = Catalog()
    catalog.put(ROUTE, "bad", scope("bad"))
    stream = opened(catalog)
    answer(stream, sent(stream), NACK)
    assert stream.due() is None
    version = catalog.put(ROUTE, "bad", scope("better"))
    answer(stream, sent(stream))

    await stream.acknowledged({ROUTE: {"bad": version}})
    assert stream.refusals() == {}


async def test_waiting_ends_with_the_stream() -> None:
    """Whoever waits for an Envoy that is gone is told."""
    catalog = Catalog()
    stream = opened(catalog)
    version = catalog.put(ROUTE, "a", scope("a"))
    waiting = asyncio.create_task(stream.acknowledged({ROUTE: {"a": version}}))
    await asyncio.sleep(0)
    stream.close()

    with pytest.raises(Gone):
        await waiting


async def test_removal_is_acknowledged() -> None:
    """None as version: the Envoy no longer has it."""
    catalog = Catalog()
    catalog.put(ROUTE, "a", scope("a"))
    stream = opened(catalog)
    answer(stream, sent(stream))
    catalog.put(ROUTE, "a", None)
    message = sent(stream)
    assert list(message.removed_resources) == ["a"]
    answer(stream, message)

    await stream.acknowledged({ROUTE: {"a": None}})


def test_endpoints_follow_a_cluster_that_changed() -> None:
    """Envoy waits for them and does not ask: without them it acknowledges no cluster any more."""
    catalog = Catalog()
    catalog.put(CLUSTER, "a", b"\x0a\x01a")
    catalog.put(ENDPOINTS, "a", b"\x0a\x01a")
    stream = opened(catalog, CLUSTER)
    stream.receive(pb.DeltaDiscoveryRequest(type_url=ENDPOINTS, resource_names_subscribe=["a"]))
    for _ in range(2):
        answer(stream, sent(stream))
    assert stream.due() is None
    catalog.put(CLUSTER, "a", b"\x0a\x01a\x10\x01")
    cluster, endpoints = sent(stream), sent(stream)

    assert (cluster.type_url, names(cluster)) == (CLUSTER, ["a"])
    assert (endpoints.type_url, names(endpoints)) == (ENDPOINTS, ["a"])
    assert stream.due() is None


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        ("missing ): (", "missing ): ("),
        (
            'goo.gle/debugstr  \nname: "a"\ntoken: "secret"\n: Proto constraint validation failed (Domains: too few)',
            "Proto constraint validation failed (Domains: too few)",
        ),
        ('goo.gle/debugstr  \nname: "a"\ntoken: "sec...(truncated)', "it breaks a rule of Envoy's"),
        ('Unable to unpack as envoy.Lua: goo.gle/debugstr  \nvalue: "secret"\n', "Unable to unpack as envoy.Lua"),
        ('wrong:\ntoken: "secret"', "wrong"),
        ("", "it breaks a rule of Envoy's"),
    ],
)
def test_of_a_refusal_what_may_be_told(detail: str, reason: str) -> None:
    """Never the resource, of which Envoy writes out as much as there is room for."""
    assert reason_of(detail).startswith(reason)
    assert "secret" not in reason_of(detail)
