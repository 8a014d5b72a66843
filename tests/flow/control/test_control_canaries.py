"""Canaries on the real stores, with a monitor that counts and a gateway that does what facts say: promoted, taken back,
waiting, by hand, and after a restart in the middle."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from easel_contracts.errors import Conflict, InvalidInput, NotFound
from easel_contracts.facts import ServiceState
from easel_control.subscriptions import LISTENS
from easel_kit.grpc import Server
from easel_kit.keyring import Keyring
from easel_kit.testing import eventually, fresh_database, fresh_streams, process_environment
from easel_proto.internal.v1 import monitor_pb2, monitor_pb2_grpc, router_pb2_grpc
from easel_proto.v1 import audit_pb2, canaries_pb2, common_pb2, mirrors_pb2, services_pb2
from tests.flow.control.conftest import Control, replica, route
from tests.flow.control.test_control_mutations import refused, service_facts
from tests.flow.control.test_control_rollouts import rollout, running, switch, update
from tests.flow.control.test_control_status import becomes, get

FAST: dict[str, Any] = {"steps_permille": [500, 1000], "step_time_s": 1, "metrics": ["errors"]}


class Monitor(monitor_pb2_grpc.CountsServicer):
    """Counts of every second up to the last whole one, shared as the live weight says."""

    def __init__(self) -> None:
        self.rate, self.errors, self.permille = 1000, (0, 0), 0
        self.asked: list[tuple[str, int]] = []
        self._seconds: dict[int, list[monitor_pb2.ArmSecond]] = {}

    async def Read(self, request: monitor_pb2.ReadCountsRequest, context: Any) -> monitor_pb2.ReadCountsResponse:
        last = int(time.time()) - 1
        self.asked.append((request.subject, request.after_unix_s))
        if self.rate:
            self._seconds.setdefault(last, self._counted(last))
        seconds = [arm for at, arms in sorted(self._seconds.items()) if at > request.after_unix_s for arm in arms]
        return monitor_pb2.ReadCountsResponse(seconds=seconds, final_through_unix_s=last)

    def _counted(self, at: int) -> list[monitor_pb2.ArmSecond]:
        candidate = self.rate * self.permille // 1000
        return [
            monitor_pb2.ArmSecond(unix_s=at, arm=arm, requests=requests, errors=requests * errors // 100,
                                  latency_bins={350: requests - requests * errors // 100})
            for arm, requests, errors in (("stable", self.rate - candidate, self.errors[0]),
                                          ("candidate", candidate, self.errors[1]))
            if requests
        ]  # fmt: skip


class Surroundings:
    """A monitor, and gateway and scheduler that follow the newest fact of the service."""

    def __init__(self, control: Control) -> None:
        self.control, self.monitor = control, Monitor()
        self.over = False
        self.replicas = True
        """Whether replicas come up."""
        self._live: tuple[int | None, set[int]] = (None, {1})

    async def follow(self) -> None:
        """Until it is over: a task that is cancelled in the middle leaves connections behind."""
        while not self.over:
            found = await service_facts(self.control)
            if found:
                await self._do(found[-1][1])
            await asyncio.sleep(0.1)

    async def _do(self, state: ServiceState) -> None:
        on = state.rollout
        weight = on.split.weight_permille if on is not None and on.split is not None else None
        numbers = {state.revision.number} if on is None or self.replicas else set[int]()
        numbers |= {on.stable.number} if on is not None else set()
        numbers = numbers if state.wanted == "running" else set()
        if (weight, numbers) == self._live:
            return
        for number in numbers - self._live[1]:
            for name in "ab":
                await self.control.hear("ready", replica(f"ocr-{number}-{name}", "ready", revision=number))
        ids = [f"ocr-{number}-{name}" for number in sorted(numbers) for name in "ab"]
        await self.control.hear("applied", route(*ids, split_permille=weight))
        for number in self._live[1] - numbers:
            for name in "ab":
                await self.control.hear("stopped", replica(f"ocr-{number}-{name}", "stopped", revision=number))
        self._live, self.monitor.permille = (weight, numbers), weight or 0


@asynccontextmanager
async def surroundings(control: Control, live: int = 0) -> AsyncIterator[Surroundings]:
    around = Surroundings(control)
    around.monitor.permille = live
    server = Server(control.settings.monitor_addr, Keyring(control.settings.peers_file))
    server.add(monitor_pb2_grpc.add_CountsServicer_to_server, around.monitor, "easel.internal.v1.Counts")
    await server.start()
    following = asyncio.create_task(around.follow())
    try:
        yield around
    finally:
        around.over = True
        await following
        await server.stop(0)


async def start(control: Control, config: dict[str, Any] | None = None, **more: Any) -> canaries_pb2.Canary:
    plan = canaries_pb2.CanaryPlan(**(FAST | more.pop("plan", {})))
    request = canaries_pb2.StartCanaryRequest(
        name="ocr", config=json.dumps(config) if config else "", plan=plan, **more
    )
    made: canaries_pb2.Canary = await control.canaries().Start(request, metadata=control.auth)
    return made


async def by_hand(control: Control, action: str, **more: Any) -> canaries_pb2.Canary:
    request = canaries_pb2.ChangeCanaryRequest(name="ocr", action=action, **more)
    made: canaries_pb2.Canary = await control.canaries().Change(request, metadata=control.auth)
    return made


async def canary(control: Control, name: str = "ocr") -> canaries_pb2.Canary:
    found: canaries_pb2.Canary = await control.canaries().Get(
        canaries_pb2.GetCanaryRequest(name=name), metadata=control.auth
    )
    return found


async def gets_to(control: Control, *states: str, ended: bool = False) -> canaries_pb2.Canary:
    async def there() -> Any:
        found = await canary(control)
        assert found.state in states, found
        assert found.HasField("end_time") or not ended, found
        return found

    reached: canaries_pb2.Canary = await eventually(there, 40.0)
    return reached


async def splits(control: Control) -> list[int | None]:
    """Weights that facts told, as they changed."""
    told: list[int | None] = []
    for _, state in await service_facts(control):
        on = state.rollout
        weight = on.split.weight_permille if on is not None and on.split is not None else None
        if not told or told[-1] != weight:
            told.append(weight)
    return told


async def test_a_good_candidate_is_promoted(control: Control) -> None:
    """Watched from its start to its end; the rollout goes on from there, and the next canary may begin."""
    async with surroundings(control) as around:
        await running(control)
        begun = await start(control, {"metadata.cpu": 2}, idempotency_key="s")
        assert (begun.state, begun.stable_revision, begun.candidate_revision) == ("starting", 1, 2)
        assert (await start(control, {"metadata.cpu": 2}, idempotency_key="s")).id == begun.id
        service = await becomes(control, "Updating", "Canary")
        assert "canary" in service.message
        request = canaries_pb2.GetCanaryRequest(name="ocr")
        watched = [seen async for seen in control.canaries().Watch(request, metadata=control.auth)]
        assert list(dict.fromkeys(seen.state for seen in watched)) == [
            "starting", "baseline", "ramping", "promoting", "promoted",
        ]  # fmt: skip
        last = watched[-1]
        assert last.HasField("end_time")
        assert last.candidate_counts.requests > 500
        assert {row.kind: row.not_worse_ratio >= 20 for row in last.evidence} == {"errors": True}
        assert [note.reason for note in last.journal] == ["Started", "Baseline", "Step", "Replicas", "Step", "Promoted"]
        assert await eventually(lambda: _is(control, [None, 0, 500, 1000, None]))
        await done(control)
        await becomes(control, "Running", "Running")
        assert (await get(control)).current_version == 2
    assert {subject for subject, _ in around.monitor.asked} == {begun.id}
    listed = await control.canaries().List(canaries_pb2.ListCanariesRequest(), metadata=control.auth)
    assert [c.id for c in listed.canaries] == [begun.id]
    records = await control.audit().List(audit_pb2.ListAuditRequest(target="service/ocr"), metadata=control.auth)
    assert records.records[0].action == "Canaries.Start"


async def done(control: Control) -> None:
    """What a promoted canary leaves is a rollout in its last wave: replicas of the stable revision end."""
    for name in "ab":
        await control.hear("stopped", replica(f"ocr-1-{name}", "stopped"))


async def _is(control: Control, weights: list[int | None]) -> bool:
    assert await splits(control) == weights
    return True


async def test_a_worse_candidate_is_taken_back_with_numbers(control: Control) -> None:
    """Weight 0 is told before the revision is given up, and the reason is in the service's own words."""
    async with surroundings(control) as around:
        await running(control)
        around.monitor.errors = (0, 5)
        await start(control, {"metadata.cpu": 2}, plan={"step_time_s": 60})
        over = await gets_to(control, "rolled_back", ended=True)
        assert (over.reason, over.weight_permille) == ("Worse", 0)
        assert "evidence 10^" in over.message
        back = await becomes(control, "Running", "RolledBack")
        assert back.current_version == 1
        assert over.message in back.message
        assert await splits(control) == [None, 0, 500, 0, None]
        last = (await service_facts(control))[-1][1]
        assert last.withdrew, "so that its replicas do not come back into traffic before they are drained"
        request = services_pb2.ListRevisionsRequest(name="ocr")
        found = await control.services().ListRevisions(request, metadata=control.auth)
        assert {r.number: r.state for r in found.revisions} == {1: "live", 2: "reverted"}


async def test_without_requests_it_waits_and_a_restart_goes_on(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """No data is no verdict; what was counted before the restart counts after it."""
    async with fresh_database(postgres_dsn, "easel_control") as dsns:
        await fresh_streams(nats_url, {"control": LISTENS})
        environment = process_environment(short_path, nats_url, dsns)
        first = Control(short_path, nats_url, environment)
        await first.start()
        try:
            async with surroundings(first) as around:
                await running(first)
                await start(first, {"metadata.cpu": 2}, plan={"steps_permille": [500, 600, 1000]})
                await gets_to(first, "ramping")
                around.monitor.rate = 0
                before = await eventually(lambda: _waits_for_requests(first))
        finally:
            await first.stop()
        again = Control(short_path, nats_url, environment)
        again.versions = first.versions
        await again.start()
        try:
            async with surroundings(again, before.weight_permille) as around:
                after = await canary(again)
                assert after.id == before.id
                assert after.candidate_counts.requests >= before.candidate_counts.requests
                over = await gets_to(again, "promoted", ended=True)
                assert over.candidate_counts.requests > before.candidate_counts.requests
                steps = ["Replicas", "Step"]
                assert [n.reason for n in over.journal] == ["Started", "Baseline", "Step", *steps, *steps, "Promoted"]
                assert min(at for _, at in around.monitor.asked) > 0, "seconds are not read twice"
        finally:
            await again.stop()


async def _waits_for_requests(control: Control) -> canaries_pb2.Canary:
    found = await canary(control)
    assert "request" in found.waits_for, found
    assert found.realised_permille == found.weight_permille
    return found


async def test_replicas_that_fail_take_it_back(control: Control) -> None:
    async with surroundings(control) as around:
        around.replicas = False
        await running(control)
        await start(control, {"metadata.cpu": 2})
        await control.hear(
            "failed", replica("ocr-2-x", "failed", revision=2, cause="CrashLoop", message="exited with 1")
        )
        over = await gets_to(control, "rolled_back", ended=True)
        assert (over.reason, "exited with 1" in over.message) == ("ReplicasFail", True)
        assert (await becomes(control, "Running", "RolledBack")).current_version == 1


class Router(router_pb2_grpc.ComparedServicer):
    """What compared answers came to."""

    def __init__(self) -> None:
        self.verdict = "not_enough_data"

    async def Report(self, request: mirrors_pb2.ReportRequest, context: Any) -> mirrors_pb2.ComparisonReport:
        assert request.name == "ocr"
        return mirrors_pb2.ComparisonReport(name="ocr", verdict=self.verdict, message=f"compared: {self.verdict}")


async def test_compared_answers_hold_it_back(control: Control) -> None:
    """Without the router, and without enough samples, it waits; answers that differ take it back."""
    async with surroundings(control):
        await running(control)
        await start(control, {"metadata.cpu": 2}, plan={"mirror_gate": True})

        async def waits(words: str) -> bool:
            assert words in (await canary(control)).waits_for
            return True

        await eventually(lambda: waits("compared answers: the router does not tell them"), 40.0)
        router = Router()
        server = Server(control.settings.router_addr, Keyring(control.settings.peers_file))
        server.add(router_pb2_grpc.add_ComparedServicer_to_server, router, "easel.internal.v1.Compared")
        await server.start()
        await eventually(lambda: waits("compared answers: compared: not_enough_data"), 40.0)
        router.verdict = "differs"
        over = await gets_to(control, "rolled_back", ended=True)
        assert (over.reason, over.message) == ("AnswersDiffer", "compared: differs")
        await server.stop(0)


async def test_somebody_decides(control: Control) -> None:
    """Paused, resumed, stepped, promoted, aborted; what would change what runs is refused meanwhile."""
    async with surroundings(control):
        await running(control)
        assert (await refused(by_hand(control, "pause"))).code == "NO_CANARY"
        assert isinstance(await refused(canary(control)), NotFound)
        assert (await refused(start(control))).code == "NOTHING_TO_COMPARE"
        await start(control, {"metadata.cpu": 2}, plan={"manual": True, "steps_permille": [10, 20, 1000]})
        for call in (
            update(control, {"metadata.cpu": 4}), switch(control, 1), rollout(control, "revert"),
            control.services().Restart(services_pb2.RestartServiceRequest(name="ocr"), metadata=control.auth),
            start(control, {"metadata.cpu": 4}),
        ):  # fmt: skip
            assert (await refused(call)).code == "CANARY_ON"
        assert (await update(control, {"labels": {"a": "b"}})).status == "Updating"
        assert isinstance(await refused(by_hand(control, "stop")), InvalidInput)
        await gets_to(control, "baseline")
        stepped = await by_hand(control, "step", idempotency_key="k")
        assert (await by_hand(control, "step", idempotency_key="k")).journal == stepped.journal
        ramping = await gets_to(control, "ramping")
        assert (ramping.weight_permille, ramping.step) == (10, 0)
        assert (await by_hand(control, "pause")).state == "paused"
        assert "canary paused at 1 %" in (await becomes(control, "Updating", "Canary")).message
        assert (await by_hand(control, "resume")).state == "ramping"
        await eventually(lambda: _explained(control))
        await by_hand(control, "promote")
        await gets_to(control, "promoted", ended=True)
        assert isinstance(await refused(by_hand(control, "abort")), Conflict)
        assert (await get(control)).rollout.share_percent == 100


async def _explained(control: Control) -> bool:
    why = await control.services().Explain(common_pb2.ExplainRequest(name="ocr"), metadata=control.auth)
    assert {"Canary", "CanaryWaits", "CanarySeen"} <= {line.code for line in why.lines}
    return True


async def test_aborted_and_ended_by_a_stop(control: Control) -> None:
    """Both go back to what was stable. A canary may go on with a rollout that is on."""
    async with surroundings(control):
        await running(control)
        await update(control, {"metadata.cpu": 2, "metadata.rolling_strategy.max_surge": 1})
        held = await start(control)
        assert (held.stable_revision, held.candidate_revision) == (1, 2)
        await by_hand(control, "abort")
        over = await gets_to(control, "aborted", ended=True)
        assert over.reason == "AbortedByUser"
        assert (await becomes(control, "Running", "RolledBack")).current_version == 1

        again = await start(control, revision=2)
        assert again.candidate_revision == 2
        await control.services().Stop(services_pb2.StopServiceRequest(name="ocr"), metadata=control.auth)
        over = await gets_to(control, "aborted", ended=True)
        assert (over.id, over.reason) == (again.id, "Stopped")
        assert (await get(control)).current_version == 1
        listed = await control.canaries().List(canaries_pb2.ListCanariesRequest(name="ocr"), metadata=control.auth)
        assert [c.id for c in listed.canaries] == [again.id, held.id]
