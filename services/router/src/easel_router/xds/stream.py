"""One Envoy's delta stream: what it subscribed to, what is due, what it acknowledged or refused.

Without I/O: `receive` takes a request, `due` gives the next message. A refused message is sent again resource by
resource; one refused alone is put aside until its content changes, and the Envoy keeps its last good one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from google.protobuf.json_format import MessageToDict
from msgspec import Struct

from easel_router.xds import envoy_pb2 as pb
from easel_router.xds import wire
from easel_router.xds.catalog import ORDER, Catalog, Versions
from easel_router.xds.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from easel_router.xds.refusals import Refused, reason_of

_MAX_PER_MESSAGE = 2000


class Gone(Exception):
    """The Envoy's stream ended while it was waited for."""


class _Kind:
    """State of one resource type on one stream."""

    def __init__(self) -> None:
        self.subscribed = False
        self.wildcard = False
        self.names: set[str] = set()
        self.sent: dict[str, str] = {}
        """Last version sent (or known to the Envoy) of each name it has."""
        self.acked: dict[str, str] = {}
        self.refused: dict[str, tuple[str, str]] = {}
        """Name → (version, reason)."""
        self.dirty: dict[str, None] = {}
        self.alone: deque[str] = deque()
        """To be sent one by one, after a refusal."""
        self.alone_pending = False
        self.answer_empty = False

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names


class _Sent(Struct, frozen=True):
    kind: str
    versions: dict[str, str | None]
    alone: bool


class Stream:
    """An Envoy that is connected now."""

    def __init__(self, catalog: Catalog) -> None:
        self.envoy = ""
        self.metadata: dict[str, object] = {}
        self.listeners: dict[str, bytes] = {}
        """This Envoy's own listeners: name → serialised Listener."""
        self.something_due = asyncio.Event()
        self.nacks = 0
        self._catalog = catalog
        self._kinds = {kind: _Kind() for kind in ORDER}
        self._in_flight: dict[str, _Sent] = {}
        self._nonce = 0
        self._waiters: list[tuple[Versions, asyncio.Future[None]]] = []
        self._warming: set[str] = set()
        """Clusters sent since their endpoints were. Envoy makes a changed cluster anew, and uses it once it is told
        endpoints after it, but does not ask for those that it has."""
        self._unwatch = catalog.watch(self._changed)

    def introduce(self, node: pb.Node) -> None:
        """Takes the Envoy's name and metadata from its first request."""
        self.envoy = node.id
        self.metadata = MessageToDict(node.metadata)

    def receive(self, request: pb.DeltaDiscoveryRequest) -> None:
        """A subscription, an acknowledgement or a refusal."""
        kind = self._kinds.get(request.type_url)
        if kind is None:
            return
        if request.response_nonce:
            self._answered(request)
        if not kind.subscribed:
            self._first(kind, request)
        for name in request.resource_names_subscribe:
            if name == "*":
                kind.wildcard = True
            else:
                kind.names.add(name)
            kind.sent.pop(name, None)  # asked for (again): send it
            kind.dirty[name] = None
        for name in request.resource_names_unsubscribe:
            kind.names.discard(name)
            kind.sent.pop(name, None)
            kind.acked.pop(name, None)
        if kind.dirty or kind.answer_empty:
            self.something_due.set()

    def due(self) -> bytes | None:
        """The next message for this Envoy; None: nothing now."""
        self.something_due.clear()
        for url in ORDER:
            kind = self._kinds[url]
            if not kind.subscribed:
                continue
            message = self._next_alone(url, kind) or self._next(url, kind)
            if message:
                self.something_due.set()
                return message
        return None

    async def acknowledged(self, wanted: Versions) -> None:
        """Waits until this Envoy has these versions; raises Refused or Gone."""
        if self._settled(wanted):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (wanted, future)
        self._waiters.append(waiter)
        try:
            await future
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def close(self) -> None:
        """The stream is over: nobody waits for it any more."""
        self._unwatch()
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(Gone(self.envoy))

    def is_live(self) -> bool:
        """It took its listener and its routes: it answers requests."""
        listener = self._kinds[LISTENER]
        return bool(listener.acked) and not listener.refused and self._kinds[ROUTE].subscribed

    def refusals(self) -> dict[str, str]:
        """What is put aside now: name → reason."""
        return {name: reason for kind in self._kinds.values() for name, (_, reason) in kind.refused.items()}

    # --- inside

    def _first(self, kind: _Kind, request: pb.DeltaDiscoveryRequest) -> None:
        kind.subscribed = True
        kind.wildcard = not request.resource_names_subscribe
        kind.answer_empty = kind.wildcard
        kind.sent = dict(request.initial_resource_versions)
        kind.acked = dict(request.initial_resource_versions)
        for name in {*self._names(request.type_url), *kind.sent}:
            kind.dirty[name] = None
        self._settle()

    def _names(self, url: str) -> frozenset[str]:
        return frozenset(self.listeners) if url == LISTENER else self._catalog.names(url)

    def _current(self, url: str, name: str) -> wire.Packed | None:
        if url == LISTENER:
            return wire.pack(name, self.listeners[name]) if name in self.listeners else None
        return self._catalog.get(url, name)

    def _changed(self, url: str, name: str) -> None:
        kind = self._kinds[url]
        if kind.wants(name):
            kind.dirty[name] = None
            self.something_due.set()

    def _next(self, url: str, kind: _Kind) -> bytes | None:
        resources: list[tuple[wire.Packed, bytes]] = []
        removed: list[str] = []
        while kind.dirty and len(resources) < _MAX_PER_MESSAGE:
            name = next(iter(kind.dirty))
            del kind.dirty[name]
            current = self._current(url, name) if kind.wants(name) else None
            if current is None:
                if kind.sent.pop(name, None) is not None:
                    removed.append(name)
                continue
            put_aside = kind.refused.get(name)
            is_new = kind.sent.get(name) != current.version or (url == ENDPOINTS and name in self._warming)
            if is_new and (put_aside is None or put_aside[0] != current.version):
                kind.refused.pop(name, None)
                resources.append((current, b""))
        if not resources and not removed and not kind.answer_empty:
            return None
        kind.answer_empty = False
        if url == CLUSTER:
            self._endpoints_again([packed.name for packed, _ in resources])
        return self._message(url, kind, resources, removed, alone=False)

    def _endpoints_again(self, clusters: list[str]) -> None:
        """A cluster that changed is not used, nor acknowledged, nor any after it, before its endpoints have come anew,
        and Envoy does not ask for those that it has."""
        kind = self._kinds[ENDPOINTS]
        for name in clusters:
            if name in kind.names:
                kind.sent.pop(name, None)
                kind.dirty[name] = None

    def _next_alone(self, url: str, kind: _Kind) -> bytes | None:
        while kind.alone and not kind.alone_pending:
            name = kind.alone.popleft()
            current = self._current(url, name)
            if current is None:
                continue
            extra = wire.salt(name, f"{self._nonce + 1}") if url == ROUTE else b""
            kind.alone_pending = True
            if url == CLUSTER:
                self._endpoints_again([name])
            return self._message(url, kind, [(current, extra)], [], alone=True)
        return None

    def _message(
        self, url: str, kind: _Kind, resources: list[tuple[wire.Packed, bytes]], removed: list[str], *, alone: bool
    ) -> bytes:
        self._nonce += 1
        nonce = str(self._nonce)
        versions: dict[str, str | None] = {packed.name: packed.version for packed, _ in resources}
        kind.sent.update({packed.name: packed.version for packed, _ in resources})
        self._follow_up(url, versions, removed)
        versions.update(dict.fromkeys(removed))
        self._in_flight[nonce] = _Sent(url, versions, alone)
        return wire.response(url, nonce, resources, removed)

    def _follow_up(self, url: str, sent: Iterable[str], removed: Iterable[str]) -> None:
        """After clusters their endpoints, whether those have changed or not."""
        if url == ENDPOINTS:
            self._warming.difference_update(sent)
        if url == CLUSTER:
            self._warming.update(sent)
            self._warming.difference_update(removed)
            self._kinds[ENDPOINTS].dirty.update(dict.fromkeys(sent))

    def _answered(self, request: pb.DeltaDiscoveryRequest) -> None:
        sent = self._in_flight.pop(request.response_nonce, None)
        if sent is None:
            return
        kind = self._kinds[sent.kind]
        if sent.alone:
            kind.alone_pending = False
        if request.HasField("error_detail"):
            self._nack(kind, sent, reason_of(request.error_detail.message))
        else:
            for name, version in sent.versions.items():
                if version is None:
                    kind.acked.pop(name, None)
                else:
                    kind.acked[name] = version
        if kind.alone:
            self.something_due.set()
        self._settle()

    def _nack(self, kind: _Kind, sent: _Sent, reason: str) -> None:
        self.nacks += 1
        present = [name for name, version in sent.versions.items() if version is not None]
        if len(present) == 1:
            version = sent.versions[present[0]]
            assert version is not None
            kind.refused[present[0]] = (version, reason)
            return
        kind.alone.extend(name for name in present if name not in kind.alone)
        self.something_due.set()

    def _settled(self, wanted: Versions) -> bool:
        for url, names in wanted.items():
            kind = self._kinds[url]
            for name, version in names.items():
                if version is None:
                    if name in kind.acked and kind.wants(name):
                        return False
                    continue
                refused = kind.refused.get(name)
                if refused is not None and refused[0] == version:
                    raise Refused(self.envoy, name, refused[1])
                if kind.acked.get(name) != version:
                    return False
        return True

    def _settle(self) -> None:
        for wanted, future in list(self._waiters):
            if future.done():
                continue
            try:
                if self._settled(wanted):
                    future.set_result(None)
            except Refused as refused:
                future.set_exception(refused)
