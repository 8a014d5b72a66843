"""Outbox, stream and projections of a running platform, compared: was a fact lost, doubled, or told out of order?

Reads the stores with the platform's own keys (the administrator's of PostgreSQL, migrate's of NATS), changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg
import msgspec
import nats
from msgspec import Struct
from nats.aio.client import Client
from nats.errors import TimeoutError as NoMessages
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from easel_contracts import facts
from easel_contracts.facts import Entity, Fact
from easel_kit.projection import identity_of, is_final
from easel_kit.streams import DEAD, FACTS
from easel_migrate.processes import WITH_SCHEMA, listens
from easel_standalone.home import Home
from easel_standalone.keys import Keys
from easel_standalone.stores.postgres import ADMIN, Postgres, choose_user

Known: TypeAlias = tuple[Entity, str, str]
"""(entity, workspace, id)."""
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

OWNED: dict[Entity, str] = {
    "service": "SELECT workspace, name AS id, row_version FROM control.services UNION ALL"
               " SELECT workspace, name, row_version FROM control.past_names p WHERE NOT EXISTS"
               " (SELECT 1 FROM control.services s WHERE (s.workspace, s.name) = (p.workspace, p.name))",
    "key": "SELECT workspace, id, row_version FROM control.access_keys",
    "replica": "SELECT workspace, id, row_version FROM scheduler.replica",
    "node": "SELECT workspace, id, row_version FROM scheduler.node",
    "scale": "SELECT workspace, service AS id, row_version FROM autoscaler.scale",
    "route": "SELECT workspace, service AS id, row_version FROM router.routes",
    "traffic": "SELECT workspace, replica AS id, row_version FROM router.drained",
}  # fmt: skip
"""Entity → its owner's rows."""

COUNTED: tuple[Entity, ...] = ("service", "replica", "node", "key")
"""Entities whose row_version rises by one with each write, so that a missing fact shows as a gap."""


class Told(Struct, frozen=True):
    """A fact and where it stands in the stream."""

    sequence: int
    msg_id: str
    fact: Fact

    @property
    def known(self) -> Known:
        """Whom it speaks of."""
        return (self.fact.entity, self.fact.workspace, self._identity()[0])

    @property
    def version(self) -> tuple[int, int]:
        """(epoch, row_version)."""
        return (self.fact.epoch, self._identity()[1])

    @property
    def final(self) -> bool:
        """Whether the entity has ended."""
        return is_final(self.fact, facts.state_of(self.fact, facts.STATE_OF[self.fact.entity]))

    def says(self, data: bytes) -> bool:
        """Whether `data` is the same state; bytes may differ, since JSON columns do not keep the order of keys."""
        kind = facts.STATE_OF[self.fact.entity]
        return msgspec.msgpack.decode(data, type=kind) == facts.state_of(self.fact, kind)

    def _identity(self) -> tuple[str, int]:
        return identity_of(self.fact, facts.state_of(self.fact, facts.STATE_OF[self.fact.entity]))


class Compared(Struct, frozen=True):
    """What was found."""

    facts: int
    entities: int
    problems: tuple[str, ...]


@asynccontextmanager
async def stores(home: Path) -> AsyncIterator[tuple[Connection, Client]]:
    """An administrator's connection and migrate's."""
    root = Home(home)
    keys = Keys(root)
    database = await asyncpg.connect(
        Postgres(root, keys, choose_user()).dsn(ADMIN), password=keys.admin_password.read_text().strip()
    )
    bus = await nats.connect(
        f"nats://127.0.0.1:{root.config().nats_port}", nkeys_seed_str=keys.seed("migrate").read_text().strip(),
        inbox_prefix="_INBOX_migrate",
    )  # fmt: skip
    try:
        yield database, bus
    finally:
        await bus.close()
        await database.close()


async def compare(home: Path) -> Compared:
    """One look; while the platform works there are differences that pass."""
    async with stores(home) as (database, bus):
        told = await read_stream(bus)
        newest = {t.known: t for t in sorted(told, key=lambda t: t.version)}
        problems = [
            *await _waiting(database, bus),
            *in_stream(told),
            *await _against_owners(database, newest),
            *await _against_readers(database, newest),
        ]
    return Compared(len(told), len(newest), tuple(problems))


async def assert_consistent(home: Path, deadline_s: float = 60) -> Compared:
    """Waits until everything told has arrived; fails with the differences that stay."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            found = await compare(home)
        except (OSError, asyncpg.PostgresError, nats.errors.Error) as error:
            found = Compared(0, 0, (f"a store does not answer: {error!r}",))
        if not found.problems:
            return found
        assert time.monotonic() < end, "\n".join((f"of {found.facts} facts:", *found.problems[:40]))
        await asyncio.sleep(0.5)


async def read_stream(bus: Client) -> list[Told]:
    """Every fact in the stream, in its order."""
    js = bus.jetstream()
    if (await js.stream_info(FACTS)).state.messages == 0:
        return []
    reader = await js.pull_subscribe(
        "easel.fact.>", stream=FACTS,
        config=ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, inactive_threshold=30),
    )  # fmt: skip
    found: list[Told] = []
    left = 1
    while left:
        try:
            messages = await reader.fetch(500, timeout=5)
        except NoMessages:
            break
        for message in messages:
            metadata = message.metadata
            left = metadata.num_pending
            msg_id = (message.headers or {}).get("Nats-Msg-Id", "")
            found.append(Told(metadata.sequence.stream, msg_id, facts.decode(message.data)))
    await reader.unsubscribe()
    return found


def in_stream(told: list[Told]) -> list[str]:
    """Doubles, gaps and disorder among facts of the same entity."""
    problems = [
        f"{msg_id} is {n} times in the stream" for msg_id, n in Counter(t.msg_id for t in told).items() if n > 1
    ]
    problems += [f"#{t.sequence} {t.fact.type} has Nats-Msg-Id {t.msg_id}" for t in told if t.msg_id != t.fact.id]
    of_entity: dict[Known, list[Told]] = {}
    for t in told:
        of_entity.setdefault(t.known, []).append(t)
    for known, rows in of_entity.items():
        versions = [t.version for t in rows]
        if versions != sorted(set(versions)):
            problems.append(f"{known} was told in the order {versions}")
        numbers = [number for _, number in versions]
        if known[0] in COUNTED and len({epoch for epoch, _ in versions}) == 1:
            missing = sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers))
            problems += [f"{known} has no fact of row versions {missing}"] if missing else []
    return problems


async def _waiting(database: Connection, bus: Client) -> list[str]:
    problems = []
    js = bus.jetstream()
    for process in WITH_SCHEMA:
        if rows := await database.fetchval(f"SELECT count(*) FROM {process}.outbox"):
            problems.append(f"{rows} facts wait in {process}'s outbox")
        info = await js.consumer_info(FACTS, process)
        if lag := (info.num_pending or 0) + (info.num_ack_pending or 0):
            problems.append(f"{process} has {lag} facts to handle")
    if dead := (await js.stream_info(DEAD)).state.messages:
        problems.append(f"{dead} dead letters")
    return problems


async def _against_owners(database: Connection, newest: dict[Known, Told]) -> list[str]:
    problems = []
    for entity, query in OWNED.items():
        rows = {(entity, r["workspace"], r["id"]): r["row_version"] for r in await database.fetch(query)}
        for known, version in rows.items():
            told = newest.get(known)
            if told is None or told.version[1] != version:
                problems.append(f"{known}: row is at {version}, told was {told.version if told else 'nothing'}")
        problems += [
            f"{known}: told {t.fact.type} at {t.version}, its owner has no row"
            for known, t in newest.items()
            if known[0] == entity and known not in rows and not t.final
        ]
    return problems


async def _against_readers(database: Connection, newest: dict[Known, Told]) -> list[str]:
    problems = []
    for process in WITH_SCHEMA:
        rows = await database.fetch(f"SELECT entity, workspace, id, epoch, row_version, data FROM {process}.projection")
        seen = {(r["entity"], r["workspace"], r["id"]): r for r in rows}
        heard = {*listens(process), "key"}
        for known, told in newest.items():
            if known[0] not in heard:
                continue
            row = seen.get(known)
            if row is None or (row["epoch"], row["row_version"]) != told.version:
                has = (row["epoch"], row["row_version"]) if row else "nothing"
                problems.append(f"{process} knows {known} at {has}, told was {told.version}")
            elif not told.says(row["data"]):
                problems.append(f"{process} knows {known} at {told.version} with other contents")
        problems += [f"{process} knows {known}, of which nothing was told" for known in seen if known not in newest]
    return problems
