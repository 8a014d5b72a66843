"""Decides which address a container gets: the one given longest ago, as its last holder may still be called."""

from __future__ import annotations

from collections.abc import Container, Iterator
from ipaddress import IPv4Address, IPv4Network
from itertools import chain


def candidates(subnet: IPv4Network, engines: IPv4Network, after: IPv4Address | None,
               held: Container[IPv4Address]) -> Iterator[IPv4Address]:  # fmt: skip
    """Free addresses of the subnet but for the engine's own, beginning behind `after` and going round once."""
    first, last = int(subnet.network_address) + 1, int(subnet.broadcast_address) - 1
    begin = int(after) + 1 if after is not None and first <= int(after) < last else first
    for number in chain(range(begin, last + 1), range(first, begin)):
        address = IPv4Address(number)
        if address not in engines and address not in held:
            yield address
