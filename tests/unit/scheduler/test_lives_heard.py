"""An agent speaks while a replica is looked at: what it says in between is for the next look, whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from easel_contracts.runtime import ReplicaReport
from easel_kit.clock import SystemClock
from easel_scheduler.lives import Lives
from tests.unit.scheduler.build import replica


class Rows:
    """The replica's row; whatever is written is remembered."""

    def __init__(self, row: Any) -> None:
        self.row, self.written = row, []  # type: Any, list[str]
        self.database = SimpleNamespace(transaction=lambda: Transaction())

    async def replica(self, replica_id: str) -> Any:
        return self.row

    async def update(self, connection: Any, after: Any, why: Any, life_token: int) -> Any:
        self.written.append(f"{after.state}: {why.code}")
        self.row = after
        return after


class Transaction:
    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *error: object) -> None:
        return None


async def test_an_agent_that_tells_of_its_new_life_in_between_has_lost_nothing() -> None:
    row = replica("a", "ready", node="n1", run="run-1")
    link = SimpleNamespace(run_id=None, reports={}, sent_s=lambda *what: None)
    adopted = ReplicaReport(
        replica=row.id, service=row.service, revision=1, sequence=1, agent_run_id="run-2", phase="running", ready=True,
        adopted=True, ip="127.0.0.1", port=20001, network="host",
    )  # fmt: skip

    async def state(node: str) -> str:
        link.run_id, link.reports = "run-2", {row.id: adopted}  # it arrives while the look waits
        return "ready"

    rows = Rows(row)
    lives = Lives(
        cast("Any", rows), cast("Any", SimpleNamespace(of_node=lambda node: link)),
        cast("Any", SimpleNamespace(state=state)), cast("Any", SimpleNamespace(token_for=lambda node: 1)),
        SystemClock(), cast("Any", None), cast("Any", None), cast("Any", None), lambda changed: None,
    )  # fmt: skip

    await lives.reconcile(row.id)
    assert rows.written == []
    await lives.reconcile(row.id)
    assert rows.row.run == "run-2"
    assert rows.row.state == "ready"
