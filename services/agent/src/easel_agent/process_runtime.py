"""Replicas as processes of this node: see runtime.Runtime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from easel_agent.decide.exits import explain_start
from easel_agent.launching import PreparedProcess, Preparer
from easel_agent.limits import Limits
from easel_agent.processes import Children, Launched, StartFailed
from easel_agent.runtime import CannotPrepare, Node, Prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from easel_agent.replica import Replica


class ProcessRuntime:
    """Starts programs by launch.py, under control groups where there are some."""

    def __init__(self, *, node: Node, preparer: Preparer, children: Children, limits: Limits, isolation: str) -> None:
        self._node, self._preparer, self._children, self._groups = node, preparer, children, limits
        self.isolation, self.limits = isolation, limits.sentence
        self.remember: Callable[[Replica, int | None], None] = lambda _replica, _pid: None
        """Told the first process of each run, so that it is kept for the agent's next run."""

    async def prepare(self, replica: Replica) -> Prepared:
        """See Runtime."""
        return await self._preparer.prepare(replica)

    async def start(self, replica: Replica, prepared: Prepared) -> Launched:
        """See Runtime."""
        assert isinstance(prepared, PreparedProcess)
        resources = replica.spec.revision.resources
        replica.group = group = self._groups.group(
            replica.spec.replica, memory_mib=resources.memory_mib, cpu=resources.cpu,
            processes=self._node.processes_per_replica,
        )  # fmt: skip
        replica.kills_before = group.kills()
        program = replica.program = Launched(self._children, group.add, replica.log.event)
        out, err = replica.log.attach("O"), replica.log.attach("E")
        try:
            program.launch(prepared.plan, out, err)
        finally:
            os.close(out)
            os.close(err)
        try:
            await program.started
        except StartFailed as error:
            refusal = explain_start(error.stage, error.errno, error.text, prepared.plan.argv)
            raise CannotPrepare(refusal) from error
        self.remember(replica, program.init_pid)
        return program

    async def release(self, replica: Replica) -> None:
        """See Runtime."""
        self._preparer.release(replica)

    async def close(self) -> None:
        """See Runtime."""
        self._groups.close()
