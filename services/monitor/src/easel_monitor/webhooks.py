"""Delivers facts to webhooks: each in the stream's order, at least once, for as long as the stream keeps them.

A receiver that does not answer 2xx is tried again with growing pauses, for ever; what the stream gives up meanwhile
(age, size) is said in `lost`, never skipped silently. Only the copy that holds the lease delivers.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from easel_contracts import facts
from easel_contracts.facts import Fact
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger
from easel_monitor.decide import webhooks as rules
from easel_monitor.decide.events import Stored
from easel_monitor.factlog import FactLog, Head
from easel_monitor.model import Webhook
from easel_monitor.store import Webhooks
from easel_monitor.vault import Unsealable, Vault

BATCH = 64
"""Facts that one webhook gets before the others have their turn."""
NOT_OURS_S = 5.0
ERROR_MOST = 300

log = get_logger("webhooks")


class Refused(Exception):
    """The receiver's address may not be called. Not an OSError: aiohttp would replace its sentence."""


class CheckedResolver(AbstractResolver):
    """Resolves names and drops what may not be called: checked at each connection, so a name cannot change its mind."""

    def __init__(self, allow_link_local: bool) -> None:
        self._inner = aiohttp.ThreadedResolver()
        self._allow = allow_link_local

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The host's allowed addresses; raises Refused when none is."""
        found = await self._inner.resolve(host, port, family)
        refused = [rules.refusal(r["host"], allow_link_local=self._allow) for r in found]
        allowed = [r for r, why in zip(found, refused, strict=True) if why is None]
        if not allowed:
            raise Refused(next((why for why in refused if why), f"{host} has no address"))
        return allowed

    async def close(self) -> None:
        """Nothing to close."""
        await self._inner.close()


class Deliverer:
    """Brings one webhook as far as it gets; driven by a Reconciler, key = webhook id."""

    def __init__(
        self,
        store: Webhooks,
        source: FactLog,
        head: Head,
        vault: Vault,
        clock: Clock,
        holds: Callable[[str], bool],
        *,
        allow_link_local: bool,
        timeout_s: float,
    ) -> None:
        self._store, self._source, self._head, self._vault = store, source, head, vault
        self._clock, self._holds = clock, holds
        self._allow, self._timeout_s = allow_link_local, timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._not_before: dict[str, float] = {}
        self.known: set[str] = set()
        """Webhooks to be woken by new facts."""
        self.delivered = 0

    @property
    def failing(self) -> list[str]:
        """Webhooks whose last try failed."""
        return list(self._not_before)

    async def keys(self) -> list[str]:
        """All webhooks' ids."""
        self.known = {webhook.id for webhook in await self._store.all()}
        return sorted(self.known)

    async def reconcile(self, identity: str) -> float | None:
        """Delivers what is due; returns seconds until it wants to be called again, None: when there are new facts."""
        wait_s = self._not_before.get(identity, 0.0) - self._clock.monotonic()
        if wait_s > 0:
            return wait_s
        webhook = await self._store.get(identity)
        if webhook is None:
            self._not_before.pop(identity, None)
            self.known.discard(identity)
            return None
        self.known.add(identity)
        if not self._holds(identity):
            self._not_before.pop(identity, None)
            return NOT_OURS_S
        webhook = await self._checked(webhook, self._head.sequence)
        due = await self._source.read(webhook.delivered_sequence + 1, webhook.filter.subject, BATCH)
        for stored in due:
            webhook, again_s = await self._deliver(webhook, stored)
            if again_s is not None:
                return again_s
        return 0.0 if due else None

    async def close(self) -> None:
        """Closes the connections."""
        if self._session:
            await self._session.close()

    async def _checked(self, webhook: Webhook, head: int) -> Webhook:
        """Notices a stream that began anew (restored, recreated), and facts that the stream no longer has."""
        if webhook.delivered_sequence <= head and not webhook.failures:
            return webhook
        oldest, newest = await self._source.bounds()
        if webhook.delivered_sequence > newest:
            log.warning("stream began anew", webhook=webhook.id, delivered=webhook.delivered_sequence, newest=newest)
            return await self._store.progress(
                webhook, delivered_sequence=0, lost="the stream of facts began anew; delivered from its start"
            )
        if webhook.delivered_sequence + 1 >= oldest:
            return webhook
        lost = f"facts {webhook.delivered_sequence + 1} to {oldest - 1} expired before they could be delivered"
        log.error("facts lost to a webhook", webhook=webhook.id, lost=lost)
        return await self._store.progress(webhook, delivered_sequence=oldest - 1, lost=lost)

    async def _deliver(self, webhook: Webhook, stored: Stored) -> tuple[Webhook, float | None]:
        """One fact; seconds until the next try where it failed."""
        try:
            fact = facts.decode(stored.payload)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            log.error("fact cannot be read", sequence=stored.sequence, error=str(error))
            lost = f"fact {stored.sequence} cannot be read: {error}"
            return await self._store.progress(webhook, delivered_sequence=stored.sequence, lost=lost), None
        wrong = await self._post(webhook, fact, stored.sequence)
        if wrong is None:
            self.delivered += 1
            self._not_before.pop(webhook.id, None)
            webhook = await self._store.progress(webhook, delivered_sequence=stored.sequence, failures=0, last_error="")
            return webhook, None
        failures = webhook.failures + 1
        pause_s = rules.back_off_s(failures) * random.uniform(0.8, 1.2)
        text = f"fact {stored.sequence} ({fact.type}): {wrong}"[:ERROR_MOST]
        log.warning("webhook failed", webhook=webhook.id, failures=failures, retry_s=round(pause_s, 1), error=text)
        webhook = await self._store.progress(webhook, failures=failures, last_error=text)
        self._not_before[webhook.id] = self._clock.monotonic() + pause_s
        return webhook, pause_s

    async def _post(self, webhook: Webhook, fact: Fact, sequence: int) -> str | None:
        """What went wrong, as a sentence; None: accepted."""
        try:
            secret = self._vault.open(webhook.secret_sealed, webhook.id)
        except Unsealable:
            return "its secret cannot be opened: the key file was replaced; delete the webhook and make it again"
        literal = rules.literal_address(webhook.url)
        if literal and (why := rules.refusal(literal, allow_link_local=self._allow)):
            return why
        body = rules.cloud_event(fact, sequence)
        headers = rules.headers(secret, fact.id, int(self._clock.now().timestamp()), body)
        try:
            async with self._open().post(webhook.url, data=body, headers=headers, allow_redirects=False) as answer:
                return None if 200 <= answer.status < 300 else f"answered {answer.status}, expected 2xx"
        except Refused as error:
            return str(error)
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: Any = aiohttp.TCPConnector(resolver=CheckedResolver(self._allow), limit=64, ttl_dns_cache=10)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"user-agent": "easel-webhooks"},
            )
        return self._session
