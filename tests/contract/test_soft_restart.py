"""What every runtime promises of a soft restart: the program anew, all else as it is."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from easel_agent.decide.restarts import RestartPolicy
from easel_kit.testing import eventually
from tests.contract.agent.rig import Rig

SERVER = "python -m http.server $PORT"
COUNTED = "echo started >> starts; exec " + SERVER
"""One line for each start, in the replica's working directory."""
DEAF = "echo started >> starts; trap '' TERM; " + SERVER
"""Does not end on SIGTERM (nor does its server, which inherits that)."""


def starts(runtime: Rig, replica: str) -> int:
    """How often its program has been started."""
    run = runtime.agent.fleet.replicas[replica].spec
    return (runtime.home(run) / "starts").read_text().count("started")


async def test_same_replica_new_process(runtime: Rig) -> None:
    """Port, user, directory and environment stay; it is starting, then ready; no crash is counted."""
    run = await runtime.run(script="echo started >> starts; id -u; env | sort; exec " + SERVER)
    first = await runtime.ready(run)
    before = await runtime.logs(run)
    runtime.seen[run.replica].clear()

    assert runtime.restart(run, 1)
    again = await runtime.ready(run)

    seen = [
        (report.phase, report.ready, report.restart_number, report.restarts) for report in runtime.seen[run.replica]
    ]
    assert seen[0] == ("starting", False, 0, 0)
    assert ("starting", False, 1, 0) in seen
    assert seen[-1] == ("running", True, 1, 0)
    assert {phase for phase, *_ in seen} == {"starting", "running"}
    assert again.pid != first.pid
    assert not psutil.pid_exists(first.pid or 0)
    assert (again.ip, again.port) == (first.ip, first.port)
    printed = [line for line in await runtime.logs(run) if line[0] == "stdout"]
    assert printed == [line for line in before if line[0] == "stdout"]
    assert starts(runtime, run.replica) == 2  # its directory stayed too


async def test_each_number_is_carried_out_once(runtime: Rig) -> None:
    """Sent again, or late: nothing. Above the newest: another start."""
    run = await runtime.run(script=COUNTED)
    await runtime.ready(run)
    runtime.restart(run, 5)
    done = await runtime.until(run, lambda report: report.restart_number == 5 and report.ready)

    for number in (5, 4, 0):
        assert runtime.restart(run, number)
    runtime.restart(run, 6)
    last = await runtime.until(run, lambda report: report.restart_number == 6 and report.ready)

    assert last.pid != done.pid
    assert starts(runtime, run.replica) == 3


async def test_asked_for_before_the_first_start(runtime: Rig) -> None:
    """The start that follows carries it out."""
    run = await runtime.run(script=COUNTED)
    runtime.restart(run, 1)

    report = await runtime.ready(run)

    assert report.restart_number == 1
    assert starts(runtime, run.replica) == 1


async def test_the_program_may_say_goodbye(runtime: Rig) -> None:
    """SIGTERM as asked; its last words are in the log of the run before."""
    run = await runtime.run(script="trap 'echo goodbye; exit 3' TERM; python -m http.server $PORT & wait")
    await runtime.ready(run)

    runtime.restart(run, 1, grace_s=300)
    await runtime.until(run, lambda report: report.restart_number == 1 and report.ready)

    assert ("stdout", "goodbye\n") in await runtime.logs(run, previous=True)


@pytest.mark.parametrize("sigterm", [True, False])
async def test_killed_at_the_end_of_the_grace_period(runtime: Rig, sigterm: bool) -> None:
    """Deaf to SIGTERM, or not told."""
    run = await runtime.run(script=DEAF)
    await runtime.ready(run)

    runtime.restart(run, 1, grace_s=0.2, sigterm=sigterm)

    assert (await runtime.until(run, lambda report: report.restart_number == 1 and report.ready)).restarts == 0


async def test_a_newer_restart_may_be_less_patient(runtime: Rig) -> None:
    """Both are carried out by one start."""
    run = await runtime.run(script=DEAF)
    await runtime.ready(run)
    runtime.restart(run, 1, grace_s=300)
    await runtime.until(run, lambda report: "anew" in report.message)

    runtime.restart(run, 2, grace_s=0)
    await runtime.until(run, lambda report: report.restart_number == 2 and report.ready)

    assert starts(runtime, run.replica) == 2


async def test_back_off_ends_at_once(runtime: Rig) -> None:
    """And a new row of failures begins."""
    runtime.agent.fleet.policy = RestartPolicy(first_delay_s=3600, longest_delay_s=3600, loop_after=2)
    run = await runtime.run(script="echo started >> starts; test -e go && exec " + SERVER)
    await runtime.until(run, lambda report: report.phase == "backoff")
    runtime.restart(run, 1)
    again = await runtime.until(run, lambda report: report.phase == "backoff" and report.restart_number == 1)
    (runtime.home(run) / "go").touch()
    runtime.restart(run, 2)

    report = await runtime.ready(run)

    assert again.cause == "exit"  # not a crash loop
    assert report.restart_number == 2
    assert starts(runtime, run.replica) == 3


async def test_a_stop_wins(runtime: Rig) -> None:
    """Asked for while the restart waits for the program: it is not started again."""
    run = await runtime.run(script=DEAF)
    await runtime.ready(run)
    runtime.restart(run, 1, grace_s=300)
    await runtime.until(run, lambda report: "anew" in report.message)
    started = starts(runtime, run.replica)

    stopped = await runtime.stop(run)

    assert started == 1
    assert (stopped.restart_number, stopped.restarts) == (0, 0)
    phases = [report.phase for report in runtime.seen[run.replica]]
    assert phases[phases.index("stopping") :] == ["stopping", "stopped"]


async def test_a_stop_with_more_patience_wins_too(runtime: Rig) -> None:
    """The restart's shorter grace period no longer counts: the program may end as the stop allows."""
    waits = "trap 'while ! test -e go; do sleep 0.05; done; echo finished; exit' TERM; "
    run = await runtime.run(script=waits + SERVER + " & wait")
    await runtime.ready(run)
    began = asyncio.get_running_loop().time()
    runtime.restart(run, 1, grace_s=0.3)
    await runtime.until(run, lambda report: "anew" in report.message)
    stopping = asyncio.create_task(runtime.stop(run, grace_s=300, sigterm=True, idle=False))
    await eventually(lambda: asyncio.get_running_loop().time() > began + 0.6)  # past the restart's grace period
    (runtime.home(run) / "go").touch()

    await stopping

    assert ("stdout", "finished\n") in await runtime.logs(run)
    assert not any(report.restart_number for report in runtime.seen[run.replica])


async def test_after_the_end(runtime: Rig) -> None:
    """Known, and nothing happens; a replica that never was is not known."""
    run = await runtime.run(SERVER)
    await runtime.ready(run)
    await runtime.stop(run)

    assert runtime.restart(run, 1)
    assert run.replica not in runtime.agent.fleet.replicas
    assert not runtime.restart(runtime.spec(SERVER), 1)
