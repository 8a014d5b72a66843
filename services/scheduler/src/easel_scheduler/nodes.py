"""Nodes' states: written when an agent joins, falls silent, or comes back. Silence is judged by decide/beat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from msgspec.structs import replace

from easel_kit.clock import Clock
from easel_kit.db import Stale
from easel_kit.leases import Leases
from easel_kit.telemetry import get_logger
from easel_proto.internal.v1 import agent_pb2
from easel_scheduler.decide.beat import Verdict, verdict
from easel_scheduler.decide.world import Reason
from easel_scheduler.links import AgentLink, Links
from easel_scheduler.model import NodeRow, node_of
from easel_scheduler.settings import SchedulerSettings
from easel_scheduler.store import Store

ASK_S = 2.0
"""A silent agent is asked once more before its node's state falls."""

NOTE_SEEN_S = 10.0
"""How often the time of the last beat is written down; it is for people only."""

log = get_logger("nodes")


class Nodes:
    """Keeps the node rows true."""

    def __init__(self, store: Store, links: Links, leases: Leases, clock: Clock, settings: SchedulerSettings) -> None:
        self._store, self._links, self._leases, self._clock = store, links, leases, clock
        self._settings = settings
        self._began = clock.monotonic()
        self._rows: dict[str, NodeRow] = {}
        self._noted: dict[str, float] = {}
        self.on_changed: Callable[[NodeRow], Awaitable[None]] | None = None
        """Told after a node's state was written."""

    def silent_s(self, node_id: str) -> float:
        """Since its agent was last heard by this process, or since this process began to listen."""
        link = self._links.of_node(node_id)
        return self._clock.monotonic() - (link.last_beat if link else self._began)

    async def state(self, node_id: str) -> str:
        """A node's state; `not_ready` where it is not known."""
        row = await self._row(node_id)
        return row.state if row else "not_ready"

    async def described(self, link: AgentLink, found: agent_pb2.NodeDescription) -> None:
        """An agent said who it is: a new node, or one that is back, or the same as before. May raise Stale."""
        self._rows.pop(found.node_id, None)
        before = await self._row(found.node_id)
        now = self._clock.now()
        row = node_of(found, workspace=self._settings.workspace, agent_addr=link.address, now=now)
        if (
            before is not None
            and replace(row, row_version=before.row_version, last_seen_at=before.last_seen_at) == before
        ):
            return
        why = Reason("AgentJoined", f"the agent at {link.address} said what this node has")
        if before is not None and before.agent_run_id != row.agent_run_id:
            why = Reason("AgentRestarted", "its agent was started anew; what it does not take over has ended")
        await self._write(replace(row, row_version=before.row_version if before else 0), why)

    async def reconcile(self, node_id: str) -> float | None:
        """Gives the node the state that its silence means."""
        if self._leases.token_for(node_id) is None:
            return None
        row = await self._row(node_id)
        if row is None:
            return None
        link = self._links.of_node(node_id)
        found = self._verdict(row, link)
        if found.state in ("not_ready", "lost") and link is not None and await link.answers(ASK_S):
            found = self._verdict(row, link)
        if found.state != row.state:
            await self._write(replace(row, state=found.state, last_seen_at=self._last_seen(row)), found.why)
        elif link is not None and link.run_id is not None:
            await self._note_seen(row.id)
        return found.again_s

    async def keys(self) -> list[str]:
        """Every node, for the resync."""
        return [row.id for row in await self._store.nodes()]

    def _verdict(self, row: NodeRow, link: AgentLink | None) -> Verdict:
        return verdict(
            row.state, self.silent_s(row.id), connected=link is not None and link.run_id is not None,
            lease_s=self._settings.node_lease_s, lost_s=self._settings.node_lost_s,
        )  # fmt: skip

    async def _row(self, node_id: str) -> NodeRow | None:
        row = self._rows.get(node_id) or await self._store.node(node_id)
        if row is not None:
            self._rows[node_id] = row
        return row

    async def _write(self, row: NodeRow, why: Reason) -> None:
        token = self._leases.token_for(row.id)
        if token is None:
            raise Stale(f"node {row.id} is another copy's")
        self._rows.pop(row.id, None)
        async with self._store.database.transaction() as connection:
            await self._store.write_node(connection, row, why, token)
        log.info("node", node=row.id, state=row.state, reason=why.code, message=why.message)
        if self.on_changed is not None:
            await self.on_changed(row)

    async def _note_seen(self, node_id: str) -> None:
        now = self._clock.monotonic()
        if now - self._noted.get(node_id, 0.0) >= NOTE_SEEN_S:
            await self._store.seen(node_id, self._clock.now())
            self._noted[node_id] = now

    def _last_seen(self, row: NodeRow) -> datetime:
        link = self._links.of_node(row.id)
        return self._clock.now() if link is not None and link.run_id is not None else row.last_seen_at
