"""What control does when others tell facts, and the loop that moves a service's rollout and writes its status.

A fact only wakes; both are decided from the projections (decide/rollout.py, decide/status.py) and written under a guard
and a fence.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.facts import Cause, Fact
from easel_control.admission import Admission
from easel_control.decide.expiry import not_running_since
from easel_control.decide.pins import newly_pinned, pinned
from easel_control.decide.releases import taken_back
from easel_control.decide.revisions import moves
from easel_control.decide.rollout import advance, look_again_s, scene_of
from easel_control.decide.status import Status, status_of
from easel_control.decide.view import World, is_present, view_of
from easel_control.mirrors import drop_target
from easel_control.model import RevisionRow, ServiceRow
from easel_control.store import Store
from easel_control.worlds import Worlds
from easel_kit.clock import Clock
from easel_kit.leases import Leases
from easel_kit.reconcile import Reconciler

ELSEWHERE_S = 5.0
"""Seconds after which a copy without the lease looks again whether it got it."""


class _Step(Struct, frozen=True, kw_only=True):
    """A row after its rollout's next step."""

    row: ServiceRow
    cause: Cause | None = None
    """What is told of the rollout; None: nothing happened to it that others have to know."""
    given_up: int = 0
    again_s: float | None = None


class Handlers:
    """Fact handlers and the status loop of one workspace."""

    def __init__(
        self, workspace: str, store: Store, worlds: Worlds, admission: Admission, leases: Leases, clock: Clock
    ) -> None:
        self._workspace, self._store, self._worlds = workspace, store, worlds
        self._admission, self._leases, self._clock = admission, leases, clock
        self.reconciler = Reconciler("status", self.reconcile, clock, self._names)

    async def on_replica(self, fact: Fact) -> None:
        """A replica changed."""
        if await self._worlds.replicas.apply(fact):
            self.reconciler.wake(fact.key)

    async def on_route(self, fact: Fact) -> None:
        """The gateway took a route over, refused or removed one."""
        if await self._worlds.routes.apply(fact):
            self.reconciler.wake(fact.key)

    async def on_scale(self, fact: Fact) -> None:
        """The autoscaler decided."""
        if await self._worlds.scales.apply(fact):
            self.reconciler.wake(fact.key)

    async def reconcile(self, name: str) -> float | None:
        """Moves a service's rollout on, brings its status up to date, and keeps what its sources were found to be.

        Answers when time alone would change something. Raises Stale where someone wrote at the same time.
        """
        fence = self._leases.token_for(name)
        if fence is None:
            return ELSEWHERE_S
        row = await self._store.get(self._workspace, name)
        if row is None:
            return None
        if row.wanted == "deleted":
            await drop_target(self._store, self._clock, row)
        world = await self._worlds.of(self._workspace, name)
        step = await self._step(pinned(row, world.replicas), world)
        status = status_of(step.row, world)
        if status.gone:
            await self._remove(row, status, fence)
            return None
        after = _with(step.row, status, world.now)
        steps: list[tuple[RevisionRow, str]] = []
        if not step.given_up:
            started = any(is_present(after, r) for r in world.replicas)
            steps = moves(after, status, await self._store.revisions(row.workspace, name), started=started)
        if after == row and not steps:
            return step.again_s
        await self._write(row, after, step, steps, fence)
        return 0.0

    async def _step(self, row: ServiceRow, world: World) -> _Step:
        """The row after the next step of its rollout, if one is on and due."""
        if row.rollout is None or row.wanted != "running":
            return _Step(row=row)
        scene = scene_of(view_of(row, world), world.now)
        move = advance(row.rollout, row.rolling, scene)
        if move is None:
            return _Step(row=row, again_s=look_again_s(row.rollout, row.rolling, scene))
        if move.kind == "revert":
            stable = await self._store.revision(row.workspace, row.name, row.rollout.stable.number)
            assert stable is not None, "the stable revision of a rollout is never pruned"
            laid = self._admission.laid(row, stable)
            change = taken_back(row, laid, move.reason, move.message, world.now)
            return _Step(row=change.row, cause=_by_control(change.reason, change.message), given_up=change.given_up)
        cause = None if move.kind == "note" else _by_control(move.reason, move.message)
        return _Step(row=replace(row, rollout=move.rollout), cause=cause)

    async def _write(
        self, row: ServiceRow, after: ServiceRow, step: _Step, steps: list[tuple[RevisionRow, str]], fence: int
    ) -> None:
        async with self._store.database.transaction() as connection:
            for revision, state in steps:
                await self._store.revision_state(connection, revision, state)
            if step.given_up:
                await self._store.give_up(connection, row.workspace, row.name, step.given_up)
            if after == row:
                return
            for spec in newly_pinned(row, after):
                await self._store.pin(connection, row.workspace, row.name, spec)
            after = replace(after, row_version=row.row_version + 1, updated_at=self._clock.now())
            await self._store.update(connection, after, fence)
            verb = "status_changed" if step.cause is None else "rollout_changed"
            await self._store.tell(connection, after, verb, step.cause or _by_control(after.reason, after.message))

    async def _remove(self, row: ServiceRow, status: Status, fence: int) -> None:
        """Deletes the row; its fact is the last of this service."""
        last = replace(
            row, status="Deleted", reason="Deleted", message="nothing of it is left",
            row_version=row.row_version + 1, updated_at=self._clock.now(),
        )  # fmt: skip
        async with self._store.database.transaction() as connection:
            await self._store.remove(connection, last, fence)
            await self._store.tell(connection, last, "deleted", _by_control("Deleted", "replicas and route are gone"))

    async def _names(self) -> Iterable[str]:
        return [name for workspace, name in await self._store.names() if workspace == self._workspace]


def _by_control(reason: str, message: str) -> Cause:
    return Cause(actor="control", reason=reason, message=message)


def _with(row: ServiceRow, status: Status, now: datetime) -> ServiceRow:
    """The row with its status, and with how long no request would have been answered."""
    answers = status.status == "Running" or status.running > 0
    return replace(
        row, status=status.status, reason=status.reason, message=status.message, total=status.total,
        running=status.running, settled=status.settled, phase_s=status.phase_s, observed_generation=row.generation,
        proven=status.proven, not_running_since=not_running_since(row, answers=answers, now=now),
        expiry_warned=0 if answers else row.expiry_warned,
    )  # fmt: skip
