"""Which Envoys are waited for: those connected, and those lost only just now."""

from __future__ import annotations

import asyncio

import pytest

from easel_kit.clock import SystemClock
from easel_router.envoys import Envoys, NoEnvoy
from easel_router.hold import Asked, Go
from easel_router.testing import until
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.catalog import Catalog
from easel_router.xds.load import Loads
from easel_router.xds.messages import LISTENER, ROUTE
from easel_router.xds.server import XdsServer
from easel_router.xds.stream import Gone, Stream

GRACE_S = 0.4


async def nobody_waits(asked: Asked) -> Go:
    return Go(left_s=1.0)


def barrier(catalog: Catalog) -> tuple[XdsServer, Envoys]:
    server = XdsServer(catalog, Loads(), lambda metadata: {}, lambda token: True, nobody_waits)
    return server, Envoys(server, SystemClock(), GRACE_S, "secret")


def connect(server: XdsServer, catalog: Catalog, name: str, older: tuple[str, ...] = ()) -> Stream:
    """A stream that has taken its listener, as the server would register it."""
    stream = Stream(catalog)
    stream.introduce(pb.Node(id=name))
    stream.metadata["older"] = list(older)
    stream.listeners = {"data": b""}
    for kind in (LISTENER, ROUTE):
        stream.receive(pb.DeltaDiscoveryRequest(type_url=kind))
    acknowledge(stream)
    server.streams[name] = stream
    server.on_change()
    return stream


def acknowledge(stream: Stream) -> None:
    while (message := stream.due()) is not None:
        sent = pb.DeltaDiscoveryResponse.FromString(message)
        stream.receive(pb.DeltaDiscoveryRequest(type_url=sent.type_url, response_nonce=sent.nonce))


def lose(server: XdsServer, name: str) -> None:
    server.streams.pop(name).close()
    server.on_change()


async def test_nobody_is_not_everybody() -> None:
    """Without any Envoy nothing counts as acknowledged."""
    _, envoys = barrier(Catalog())

    with pytest.raises(NoEnvoy):
        await envoys.everywhere({})


async def test_all_connected_must_acknowledge() -> None:
    """One of two is not enough."""
    catalog = Catalog()
    server, envoys = barrier(catalog)
    first, second = connect(server, catalog, "a"), connect(server, catalog, "b")
    wanted = {ROUTE: {"ocr": catalog.put(ROUTE, "ocr", b"\x0a\x01x")}}
    waiting = asyncio.create_task(envoys.everywhere(wanted))
    acknowledge(first)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    acknowledge(second)

    assert set(await waiting) == {first, second}


async def test_a_lost_envoy_is_waited_for_until_the_grace_period_ends() -> None:
    """It goes on serving what it has; after the period the others decide alone."""
    catalog = Catalog()
    server, envoys = barrier(catalog)
    connect(server, catalog, "a")
    connect(server, catalog, "b")
    lose(server, "b")
    assert envoys.live()["b"] is None
    waiting = asyncio.create_task(envoys.everywhere({}))
    await asyncio.sleep(0.05)
    assert not waiting.done()

    assert [stream.envoy for stream in await asyncio.wait_for(waiting, 5)] == ["a"]


async def test_a_lost_envoy_that_comes_back_must_acknowledge_too() -> None:
    """Also when it was lost before this process started."""
    catalog = Catalog()
    server, envoys = barrier(catalog)
    envoys.expect(["a"])
    wanted = {ROUTE: {"ocr": catalog.put(ROUTE, "ocr", b"\x0a\x01x")}}
    waiting = asyncio.create_task(envoys.everywhere(wanted))
    await asyncio.sleep(0.05)
    stream = connect(server, catalog, "a")
    await until(waiting.done, "acknowledged")

    assert waiting.result() == [stream]


async def test_one_that_handed_over_must_acknowledge_but_is_not_probed() -> None:
    """It finishes what it has, and takes nothing new."""
    catalog = Catalog()
    server, envoys = barrier(catalog)
    old = connect(server, catalog, "envoy-0.9")
    new = connect(server, catalog, "envoy-0.10", older=("envoy-0.9",))
    wanted = {ROUTE: {"ocr": catalog.put(ROUTE, "ocr", b"\x0a\x01x")}}
    waiting = asyncio.create_task(envoys.everywhere(wanted))
    acknowledge(new)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert set(envoys.live()) == {"envoy-0.9", "envoy-0.10"}
    acknowledge(old)

    assert await waiting == [new]


async def test_one_that_comes_meanwhile_must_acknowledge_too() -> None:
    """Else nobody would be left who answers for the gateway that handed over."""
    catalog = Catalog()
    server, envoys = barrier(catalog)
    old = connect(server, catalog, "envoy-0.1")
    wanted = {ROUTE: {"ocr": catalog.put(ROUTE, "ocr", b"\x0a\x01x")}}
    waiting = asyncio.create_task(envoys.everywhere(wanted))
    await asyncio.sleep(0)
    new = connect(server, catalog, "envoy-0.2", older=("envoy-0.1",))
    acknowledge(old)

    assert await asyncio.wait_for(waiting, 5) == [new]


async def test_the_end_of_one_that_handed_over_is_no_loss() -> None:
    """Nobody waits for it; an Envoy of another gateway is waited for as ever."""
    catalog = Catalog()
    server, envoys = barrier(catalog)
    connect(server, catalog, "envoy-0.1")
    connect(server, catalog, "envoy-1.1")
    connect(server, catalog, "envoy-0.2", older=("envoy-0.1",))
    lose(server, "envoy-0.1")
    assert set(envoys.live()) == {"envoy-0.2", "envoy-1.1"}
    lose(server, "envoy-1.1")

    assert envoys.live()["envoy-1.1"] is None


@pytest.mark.parametrize(("older", "waited_for"), [((), {"envoy-1.1"}), (("envoy-0.1",), {"envoy-0.1", "envoy-1.1"})])
async def test_a_new_process_says_which_older_ones_live(older: tuple[str, ...], waited_for: set[str]) -> None:
    """After a restart of the router it is not known who ended meanwhile: the gateway's newest process says it."""
    catalog = Catalog()
    server, envoys = barrier(catalog)
    envoys.expect(["envoy-0.1", "envoy-1.1"])
    connect(server, catalog, "envoy-0.2", older=older)

    assert set(envoys.live()) == {"envoy-0.2", *waited_for}


async def test_a_replaced_envoys_probe_is_given_up() -> None:
    """Its probe's listener is closed by then: the barrier looks again at who takes requests."""
    catalog = Catalog()
    server, envoys = barrier(catalog)
    old = connect(server, catalog, "envoy-0.1")
    old.metadata["probe_address"] = "127.0.0.1:9"
    probing = asyncio.create_task(envoys.probed([old], "ocr", "hash"))
    await asyncio.sleep(0.05)
    assert not probing.done()
    connect(server, catalog, "envoy-0.2", older=("envoy-0.1",))

    with pytest.raises(Gone):
        await asyncio.wait_for(probing, 5)
    await envoys.close()


async def test_those_that_share_the_requests_are_counted() -> None:
    """Told when one comes, when one that was lost is given up, and not for a newer process of the same gateway."""
    catalog = Catalog()
    server, envoys = barrier(catalog)
    told: list[int] = []
    counting = asyncio.create_task(envoys.count(told.append))
    await until(lambda: told == [0], "nobody")
    connect(server, catalog, "envoy-0.1")
    await until(lambda: told == [0, 1], "one")
    connect(server, catalog, "envoy-1.1")
    await until(lambda: told == [0, 1, 2], "two")
    connect(server, catalog, "envoy-0.2", older=("envoy-0.1",))
    lose(server, "envoy-1.1")
    assert envoys.serving() == 2, "it counts until it is given up"
    await until(lambda: told == [0, 1, 2, 1], "one again")
    counting.cancel()
