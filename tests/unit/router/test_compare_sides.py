"""What is compared with what, and when a report begins anew."""

from __future__ import annotations

from typing import Any

import msgspec

from easel_contracts.facts import ReplicaState, Rollout, ServiceState
from easel_contracts.spec import CANDIDATE, Comparison, Mirroring, Resources, RevisionSpec
from easel_router.decide.sides import Side, answers, sides


def revision(number: int, nonce: int = 0) -> RevisionSpec:
    return RevisionSpec(number=number, port=1, resources=Resources(cpu=1, memory_mib=1), restart_nonce=nonce)


def service(name: str = "ocr", number: int = 1, **more: Any) -> ServiceState:
    return ServiceState(
        uid=f"uid-{name}", name=name, generation=1, wanted="running", instance=1, revision=revision(number), **more
    )


def mirrored(*targets: str, compare: Comparison | None = None) -> Mirroring:
    return Mirroring(targets=targets, percent=10, compare=compare or Comparison())


ROLLING = service(
    number=2, mirroring=mirrored(CANDIDATE), rollout=Rollout(stable=revision(1), share_percent=50)
)  # fmt: skip


def test_a_rollouts_two_revisions() -> None:
    found = sides(ROLLING, None)
    assert found is not None
    assert (found.target, found.stable.revisions, found.candidate.revisions) == (CANDIDATE, (1,), (2,))
    assert found.stable.uid == found.candidate.uid == "uid-ocr"


def test_nothing_is_compared_without_a_candidate_or_options() -> None:
    assert sides(service(number=2, mirroring=mirrored(CANDIDATE)), None) is None
    assert sides(None, None) is None
    assert sides(service(), service("new")) is None
    discarding = Mirroring(targets=("new",), percent=10)
    assert sides(service(mirroring=discarding), service("new")) is None
    off = msgspec.structs.replace(mirrored("new"), percent=0)
    assert sides(service(mirroring=off), service("new")) is None
    assert sides(service(mirroring=mirrored("new")), None) is None
    assert sides(service(mirroring=mirrored("new")), msgspec.structs.replace(service("new"), wanted="deleted")) is None


def test_another_service_is_compared_as_it_serves() -> None:
    rolling = service("new", 5, rollout=Rollout(stable=revision(4), share_percent=1))
    found = sides(service(mirroring=mirrored("new")), rolling)
    assert found is not None
    assert found.stable == Side(service="ocr", uid="uid-ocr", revisions=(1,))
    assert found.candidate == Side(service="new", uid="uid-new", revisions=(4, 5))


def test_a_report_is_about_these_sides_and_options_alone() -> None:
    now = sides(ROLLING, None)
    replace = msgspec.structs.replace
    same = replace(
        ROLLING, generation=9, instance=7, status="Running",
        rollout=Rollout(stable=revision(1, nonce=3), share_percent=100, keep_stable=True),
        mirroring=Mirroring(targets=(CANDIDATE,), percent=50, compare=Comparison()),
    )  # fmt: skip
    assert sides(same, None) == now
    for other in (
        replace(ROLLING, uid="another"),
        replace(ROLLING, revision=revision(3)),
        replace(ROLLING, rollout=Rollout(stable=revision(0), share_percent=50)),
        replace(ROLLING, mirroring=mirrored(CANDIDATE, compare=Comparison(tolerance=0.1))),
    ):
        assert sides(other, None) != now


def test_a_side_answers_while_a_replica_of_it_takes_traffic() -> None:
    side = Side(service="ocr", uid="uid-ocr", revisions=(2,))

    def replica(number: int, state: str, **more: Any) -> ReplicaState:
        return ReplicaState(id="ocr-1-a", service="ocr", revision=number, generation=1, state=state, **more)

    assert answers(side, [replica(1, "ready"), replica(2, "ready")])
    assert not answers(side, [replica(1, "ready"), replica(2, "starting")])
    assert not answers(side, [replica(2, "ready", out_of_traffic="isolated")])
    assert not answers(side, [])
