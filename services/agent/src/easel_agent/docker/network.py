"""The bridge network on which this agent's containers sit, and who has which of its addresses.

Made once and kept until the agent is told to end: while it is there, an address of a container that is gone leads
nowhere but to this bridge. Without a bridge it would go out by the machine's default route.
"""

from __future__ import annotations

import asyncio
import random
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from easel_agent.decide.addresses import candidates
from easel_agent.docker.engine import Engine, EngineError
from easel_contracts.errors import Refused


class Network:
    """One per agent."""

    def __init__(self, engine: Engine, name: str, labels: dict[str, str], *, given: str) -> None:
        """`given`: a network that is there and is used instead of one of our own."""
        self._engine, self.name, self._labels, self._own = engine, given or name, labels, not given
        self._lock = asyncio.Lock()
        self._subnet: IPv4Network | None = None
        self._engines = IPv4Network("0.0.0.0/32")
        self._held: dict[IPv4Address, str] = {}
        self._after: IPv4Address | None = None

    async def ensure(self) -> None:
        """Make it where it is not there. Raises EngineAway, or Refused where it cannot be used."""
        async with self._lock:
            await self._ensure()

    async def _ensure(self) -> None:
        found = await self._inspect()
        if found is None and self._own:
            await self._make()
            found = await self._inspect()
        if found is None:
            raise Refused("NO_NETWORK", f"there is no Docker network {self.name!r}", "see EASEL_AGENT_DOCKER_NETWORK")
        config = next((item for item in found["IPAM"]["Config"] or () if "." in item.get("Subnet", "")), None)
        if config is None:
            raise Refused("NO_SUBNET", f"the Docker network {self.name!r} has no IPv4 subnet",
                          "make it with --subnet: replicas have fixed addresses")  # fmt: skip
        subnet = IPv4Network(config["Subnet"])
        if subnet != self._subnet:
            self._subnet = subnet
            self._after = subnet.network_address + random.randrange(subnet.num_addresses)
        # What the engine gives away by itself: the gateway's address, and all of its own range.
        own = IPv4Network(config["IPRange"]) if config.get("IPRange") else None
        self._engines = own or IPv4Network(config.get("Gateway") or subnet.network_address + 1)

    def reserve(self, replica: str) -> str:
        """An address for a replica, for as long as it lives."""
        assert self._subnet is not None
        address = next(candidates(self._subnet, self._engines, self._after, self._held), None)
        if address is None:
            raise Refused("NO_FREE_ADDRESS", f"no address of {self._subnet} is free", "use a larger network")
        self._after = address
        self._held[address] = replica
        return str(address)

    def keep(self, address: str, replica: str) -> None:
        """A replica that is adopted has this one already."""
        self._held[IPv4Address(address)] = replica

    def release(self, address: str) -> None:
        """Give it back."""
        self._held.pop(IPv4Address(address), None)

    async def remove(self) -> None:
        """Take our own network away; it has no containers. Raises EngineAway."""
        if self._own:
            try:
                await self._engine.ask("DELETE", f"networks/{self.name}")
            except EngineError as error:
                if error.status != 404:
                    raise

    async def _inspect(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._engine.ask("GET", f"networks/{self.name}")
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def _make(self) -> None:
        """Fixed addresses need a subnet that was asked for: let the engine choose one, then ask for just that."""
        await self._create({})
        found = await self._inspect()
        assert found is not None
        subnet = found["IPAM"]["Config"][0]["Subnet"]
        await self.remove()
        await self._create({"Config": [{"Subnet": subnet}]})

    async def _create(self, ipam: dict[str, Any]) -> None:
        # Replicas run strangers' code: they reach each other by the gateway, with a token, and not beside it.
        options = {"com.docker.network.bridge.enable_icc": "false"}
        body = {"Name": self.name, "Driver": "bridge", "CheckDuplicate": True, "Labels": self._labels, "IPAM": ipam,
                "Options": options}  # fmt: skip
        try:
            await self._engine.ask("POST", "networks/create", data=body)
        except EngineError as error:
            if error.status != 409:
                raise
