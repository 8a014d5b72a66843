"""Which address an Envoy is known by to those who come in direct mode."""

from __future__ import annotations

import json

import pytest

from easel_contracts.ids import RESERVED_NAMES, SERVICE_NAME
from easel_router.decide.discovery import address, answer
from easel_router.xds.discovery import PREFIXES


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"data_address": "10.0.0.1:8080"}, ("10.0.0.1", 8080)),
        ({"data_address": "10.0.0.1:8080", "advertised_address": "gw.example:80"}, ("gw.example", 80)),
        ({"data_address": "0.0.0.0:8080", "advertised_address": "127.0.0.1:9000"}, ("127.0.0.1", 9000)),
        ({"data_address": "unix:/run/data.sock", "advertised_address": "127.0.0.1:9000"}, ("127.0.0.1", 9000)),
        ({"data_address": "[::1]:8080"}, ("::1", 8080)),
        ({"data_address": "0.0.0.0:8080"}, None),
        ({"data_address": "[::]:8080"}, None),
        ({"data_address": "unix:/run/data.sock"}, None),
        ({}, None),
    ],
)
def test_an_address_that_others_can_use(metadata: dict[str, object], expected: tuple[str, int] | None) -> None:
    """What it advertises, else what it binds; an address that means no host is none."""
    assert address(metadata) == expected


def test_no_service_takes_the_place_of_discovery() -> None:
    """Scopes are found by one segment of the path, whatever stands before it."""
    assert {name for name in PREFIXES if SERVICE_NAME.match(name)} <= RESERVED_NAMES


def test_each_address_once() -> None:
    """Envoys that share a port are one to callers; the order is no matter."""
    nodes = [{"data_address": f"10.0.0.{n}:8080"} for n in (2, 1, 2)]

    assert json.loads(answer(nodes))["endpoints"]["items"] == [
        {"ip": "10.0.0.1", "port": 8080, "weight": 100},
        {"ip": "10.0.0.2", "port": 8080, "weight": 100},
    ]
    assert answer(nodes) == answer(nodes[::-1])
    assert json.loads(answer([])) == {"endpoints": {"items": []}}
