"""A process's life: settings, connections, what `build` registers, serving, a graceful stop.

A background task that ends or raises ends the process: the supervisor starts it again into the same state, which is
safer than going on with a part missing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import asyncpg
import grpc.aio
import msgspec
import uvloop

from easel_contracts import facts
from easel_contracts.facts import Entity, Fact, KeyState
from easel_contracts.ids import metric_subject, uuid7
from easel_kit.bus import Bus, FactHandler, MetricsHandler
from easel_kit.cancelling import ended
from easel_kit.clock import Clock, SystemClock
from easel_kit.db import UNREACHABLE, Database
from easel_kit.facts_api import FactsApi, ListFacts
from easel_kit.following import Following
from easel_kit.grpc import Server, channel
from easel_kit.health import Check, Health
from easel_kit.keyring import Keyring
from easel_kit.leases import Leases
from easel_kit.outbox import Relay
from easel_kit.projection import Projection
from easel_kit.reconcile import Reconciler
from easel_kit.settings import ProcessSettings, SettingsError, load, secret
from easel_kit.telemetry import configure, get_logger
from easel_proto.internal.v1 import facts_pb2_grpc

S = TypeVar("S", bound=ProcessSettings)
Background = Callable[[], Awaitable[None]]

LOCK_FILE = ".copy.lock"
STEP_S = 5.0
"""How long one step of a graceful stop may take."""


class Process(Generic[S]):
    """What `build` gets to work with."""

    def __init__(self, name: str, settings: S, listens: tuple[Entity, ...], clock: Clock | None = None) -> None:
        self.name, self.settings, self.listens = name, settings, listens
        self.clock: Clock = clock or SystemClock()
        self.log = get_logger(name)
        self.holder = settings.holder or f"{socket.gethostname()}:{settings.home}"
        """Where this copy lives; the same after a restart."""
        self.health = Health(name)
        self.keyring = Keyring(settings.peers_file)
        self.bus = Bus(settings, name)
        self._db = Database(settings.db_dsn, name, secret(settings.db_password_file)) if settings.db_dsn else None
        self._leases = Leases(self._db, f"{self.holder}/{uuid7()}", self.clock) if self._db else None
        self.token = secret(settings.process_token_file)
        self._server = Server(settings.addr(name), self.keyring)
        self._handlers: dict[Entity, FactHandler] = {}
        self._owned: dict[Entity, ListFacts] = {}
        self._background: list[Background] = []
        self._on_stop: list[Background] = []
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._home_lock = -1

    @property
    def db(self) -> Database:
        """The process's own schema."""
        assert self._db is not None, f"{self.name} has no database"
        return self._db

    @property
    def leases(self) -> Leases:
        """Which keys this copy may act on."""
        assert self._leases is not None, f"{self.name} has no database"
        return self._leases

    def subscribe(self, handlers: Mapping[Entity, FactHandler]) -> None:
        """Handlers of facts, by entity; each must be among the process's LISTENS. Handlers of facts of different keys
        run at the same time."""
        if unknown := set(handlers) - set(self.listens):
            raise ValueError(f"{self.name} does not listen to {sorted(unknown)}; see its subscriptions.py")
        self._handlers.update(handlers)

    def on_metrics(self, kind: str, handler: MetricsHandler) -> None:
        """A handler (subject, payload) of one-second metrics of `service`, `replica`, `node` or `hold`."""
        self.bus.on_metrics(f"easel.metric.*.{kind}.>", handler)

    async def publish_metrics(self, kind: str, key: str, metrics: msgspec.Struct) -> None:
        """Publishes one-second metrics."""
        subject = metric_subject(self.settings.workspace, kind, key)
        await self.bus.publish_core(subject, msgspec.msgpack.encode(metrics))

    def serve(self, register: Callable[[Any, Any], None], servicer: Any, full_name: str) -> None:
        """Serves a gRPC API, public (easel.v1.X) or internal (easel.internal.v1.X)."""
        self._server.add(register, servicer, full_name)

    def describes(self, owners: Mapping[str, str]) -> None:
        """Has reflection and health here speak of public APIs (full name → process) that others serve: Envoy asks one
        process only."""
        for full_name, process in owners.items():
            if process != self.name:
                self._server.describe(full_name, self.channel(process))

    def owns(self, entity: Entity, listing: ListFacts) -> None:
        """Tells how to list the newest fact of every entity of a kind that this process owns."""
        self._owned[entity] = listing

    def background(self, run: Background) -> None:
        """A coroutine function that runs as long as the process."""
        self._background.append(run)

    def on_stop(self, run: Background) -> None:
        """Runs before connections close."""
        self._on_stop.append(run)

    def ready_when(self, name: str, check: Check) -> None:
        """A condition of /ready."""
        self.health.check(name, check)

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """A gauge of /metrics."""
        self.health.gauge(name, help_text, value)

    def watch_loop(self, loop: Reconciler) -> None:
        """Gauges of a reconcile loop: how long ago it last brought a key about (since start: before the first), and
        for how many keys the last try failed."""
        began = self.clock.monotonic()
        self.gauge(f"reconcile_{loop.name}_age_seconds", "Since a key was last reconciled, or since the start",
                   lambda: self.clock.monotonic() - (loop.last_success or began))  # fmt: skip
        self.gauge(f"reconcile_{loop.name}_failing", "Keys whose last try failed", lambda: len(loop.failing()))

    def channel(self, process: str) -> grpc.aio.Channel:
        """The channel to another process's gRPC address."""
        if process not in self._channels:
            self._channels[process] = channel(self.settings.addr(process), self.token)
        return self._channels[process]

    # The rest is for `run`.

    async def connect(self) -> None:
        """Waits for the stores to answer; raises ConsumerDrift where `migrate` has not run."""
        await self.bus.connect()
        if self._db is None:
            return
        while True:
            try:
                await self._db.open()
                break
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                self.log.warning("waiting for the database", error=repr(error))
                await self.clock.sleep(0.3)
        await self.bus.check_consumer(self.listens)
        self._keys = Projection(self._db, "key", KeyState)
        self.keyring.replace(await self._keys.all())

    async def start(self) -> None:
        """Starts everything that `build` registered; serving comes last."""
        if self._db:
            handlers: dict[Entity, FactHandler] = {**self._handlers, "key": self._on_key}
            await self._leased_and_relayed(self._db, handlers)
            self.bus.on_facts(handlers)
        await self.bus.start()
        await self._server.start()
        if self.settings.health_addr:
            await self.health.serve(self.settings.health_addr)

    async def run_background(self) -> None:
        """Runs the background tasks until one ends."""
        async with asyncio.TaskGroup() as group:
            for task in self._background:
                group.create_task(self._forever(task))

    async def stop(self) -> None:
        """Ends running calls within the grace period, gives leases back, closes connections."""
        grace_s = self.settings.graceful_stop_s
        await self._within("server", self._server.stop(grace_s), grace_s + STEP_S)
        for hook in self._on_stop:
            await self._within("hook", hook())
        for name, opened in self._channels.items():
            await self._within(f"channel to {name}", opened.close(None))
        await self._within("bus", self.bus.stop())
        if self._leases and self._db:
            await self._within("leases", self._leases.release())
            await self._within("database", self._db.close())
        await self._within("health", self.health.stop())
        if self._home_lock >= 0:
            os.close(self._home_lock)

    async def _within(self, what: str, ending: Awaitable[None], longest_s: float = STEP_S) -> None:
        """One step of the stop: one that fails or hangs is told and left, the others still get their turn."""
        step = asyncio.ensure_future(ending)
        done, _ = await asyncio.wait({step}, timeout=longest_s)
        if not done:
            self.log.warning("did not end in time", what=what, longest_s=longest_s)
            step.cancel()
        elif error := step.exception():
            self.log.warning("did not end cleanly", what=what, error=repr(error))

    async def _leased_and_relayed(self, database: Database, handlers: Mapping[Entity, FactHandler]) -> None:
        if self._has_home_alone() and (shards := await self.leases.succeed(self.holder)):
            self.log.info("took over from the copy before", shards=shards)
        await self.leases.renew()
        relay = Relay(database, self.bus, self.clock)
        following = Following(self.name, self.bus, database, self.clock, listens=self.listens, handlers=handlers,
                              channel=self.channel)  # fmt: skip
        for task in (self.leases.run, relay.run, following.rebuild, following.watch_consumer, following.prune):
            self.background(task)
        self._server.add(
            facts_pb2_grpc.add_FactsServicer_to_server, FactsApi(database, self._owned), "easel.internal.v1.Facts"
        )
        self.ready_when("access keys", lambda: self.keyring.usable() > 0)
        self.gauge("outbox_rows", "Facts waiting to be published, at the last look", lambda: relay.lag)
        self.gauge("outbox_oldest_seconds", "Age of the oldest of them", lambda: relay.oldest_s)
        self.gauge("consumer_lag", "Facts not yet handled", lambda: following.lag)
        self.gauge("dead_letters", "Facts given up since start", lambda: self.bus.dead)
        self.gauge("facts_handled", "Facts handled since start", lambda: self.bus.delivered)
        self.gauge("leases_held", "Hash shards this copy may act on", lambda: self.leases.held())
        self.gauge("db_pool_use_ratio", "Busy share of database connections", lambda: database.in_use())

    def _has_home_alone(self) -> bool:
        """Whether no other living copy uses this data directory: then the one before is dead. Held until we end."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.settings.home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._home_lock = descriptor
        return True

    async def _on_key(self, fact: Fact) -> None:
        if await self._keys.apply(fact):
            # Only what is newer: a late repetition of "created" must not revive a revoked key.
            self.keyring.learn(facts.state_of(fact, KeyState))
        if handler := self._handlers.get("key"):
            await handler(fact)

    async def _forever(self, task: Background) -> None:
        running = asyncio.ensure_future(task())
        try:
            await asyncio.wait({running})
        finally:
            await ended(running)
        running.result()
        raise RuntimeError(f"background task {getattr(task, '__qualname__', task)} ended")


Build = Callable[["Process[Any]"], Awaitable[None]]


def run(name: str, settings: type[S], build: Build, consumer: tuple[Entity, ...] = ()) -> None:
    """Runs a process until SIGTERM or SIGINT; exits non-zero with the reason where something is wrong."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        loaded = load(settings, name)
    except SettingsError as error:
        raise SystemExit(f"{name}: {error}") from error
    configure(name, loaded.log_level, loaded.otlp_endpoint)
    sys.exit(uvloop.run(_main(name, loaded, build, consumer)))


async def _main(name: str, settings: ProcessSettings, build: Build, consumer: tuple[Entity, ...]) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    process = Process(name, settings, consumer)
    starting = asyncio.create_task(_start(process, build))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return 0
    if error := starting.exception():
        process.log.error("cannot start", error=str(error), exc_info=error)
        return 1
    process.log.info("serving", address=settings.addr(name))
    working = asyncio.create_task(process.run_background())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    failed = working.done() and not working.cancelled() and working.exception()
    if failed:
        process.log.error("a background task ended", error=repr(failed), exc_info=failed)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await process.stop()
    return 1 if failed else 0


async def _start(process: Process[Any], build: Build) -> None:
    await process.connect()
    await build(process)
    await process.start()
