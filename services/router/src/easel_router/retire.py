"""Takes clusters out of Envoy that no route leads to any more, once no Envoy has a request in them.

A request that is being retried needs its own cluster still: without it Envoy answers 503 at once. So the clusters of a
split that ended stay, with endpoints kept up to date, for as long as a request lives that came by them.
"""

from __future__ import annotations

import asyncio

from easel_kit.clock import Clock
from easel_router.envoys import Envoys
from easel_router.placing import Placing
from easel_router.xds.load import Loads

_LOOKS = 2
_BETWEEN_LOOKS_S = 0.5
"""Longer than a retry waits before it is sent, and so is counted nowhere."""
_AGAIN_S = 5.0
_ROUND_S = 10.0
"""Longest time for one look at all Envoys."""


class Retirements:
    """Clusters that were left."""

    def __init__(self, placing: Placing, loads: Loads, envoys: Envoys, clock: Clock) -> None:
        self._placing, self._loads, self._envoys, self._clock = placing, loads, envoys, clock

    async def reconcile(self, service: str) -> float | None:
        """Removes what was left of one service, as soon as it is empty."""
        names = self._placing.left(service)
        if not names:
            return None
        with self._loads.watching(names):
            for _ in range(_LOOKS):
                if not await self._empty(names):
                    return _AGAIN_S
                await self._clock.sleep(_BETWEEN_LOOKS_S)
        self._placing.retire(service, names)
        return _AGAIN_S if self._placing.left(service) else None

    async def _empty(self, names: tuple[str, ...]) -> bool:
        asked = [self._loads.next_by_address(envoy, names) for envoy in self._envoys.live()]
        try:
            async with asyncio.timeout(_ROUND_S):
                found = await asyncio.gather(*asked)
        except TimeoutError:
            return False  # an Envoy does not say: unknown is not zero
        return bool(found) and not any(sum(requests.values()) for requests in found)
