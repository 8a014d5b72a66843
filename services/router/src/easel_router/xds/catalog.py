"""What every Envoy should have: resources by type and name, and who wants to know when they change.

Never holds less than the truth: it is filled before the first Envoy may connect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from easel_router.xds.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from easel_router.xds.wire import Packed, pack

ORDER = (CLUSTER, ENDPOINTS, LISTENER, ROUTE)
"""In which a stream sends what is due: what is pointed at comes first."""

Versions = Mapping[str, Mapping[str, str | None]]
"""Type URL → name → version; None: removed."""


class Catalog:
    """The resources of all services; one for all streams."""

    def __init__(self) -> None:
        self._resources: dict[str, dict[str, Packed]] = {kind: {} for kind in ORDER}
        self._watchers: list[Callable[[str, str], None]] = []

    def put(self, kind: str, name: str, body: bytes | None) -> str | None:
        """Sets or (None) removes one; tells the streams if that changes anything. The version it has now."""
        before = self._resources[kind].get(name)
        after = None if body is None else pack(name, body)
        if after == before:
            return after.version if after else None
        if after is None:
            del self._resources[kind][name]
        else:
            self._resources[kind][name] = after
        for watcher in self._watchers:
            watcher(kind, name)
        return after.version if after else None

    def get(self, kind: str, name: str) -> Packed | None:
        """The resource as it should be now."""
        return self._resources[kind].get(name)

    def names(self, kind: str) -> frozenset[str]:
        """All names of a type."""
        return frozenset(self._resources[kind])

    def watch(self, watcher: Callable[[str, str], None]) -> Callable[[], None]:
        """Calls `watcher(kind, name)` after each change; the returned function ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)
