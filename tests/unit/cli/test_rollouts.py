"""A rollout in words."""

from __future__ import annotations

from easel_cli.rollouts import change, counted, shown, sides, state
from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Rollout


def replica(name: str, revision: int = 3, nonce: int = 0, made_s: int = 0) -> Replica:
    """A ready replica."""
    found = Replica(name=name, revision=revision, restart_nonce=nonce, status="ready")
    found.create_time.FromSeconds(made_s)
    return found


def names(replicas: list[Replica]) -> list[str]:
    """Theirs."""
    return [found.name for found in replicas]


def test_sides_by_revision() -> None:
    """Whatever is not of the new revision is old."""
    old, new = sides(Rollout(from_revision=3, to_revision=4), [replica("a", 2), replica("b"), replica("c", 4)])

    assert (names(old), names(new)) == (["a", "b"], ["c"])


def test_sides_of_a_restart() -> None:
    """Same revision: the newest restart's replicas are new, but none that was there before it began."""
    rollout = Rollout(from_revision=3, to_revision=3)
    rollout.began_time.FromSeconds(100)
    before = [replica("a", nonce=1, made_s=10), replica("b", nonce=1, made_s=20)]

    assert [names(side) for side in sides(rollout, before)] == [["a", "b"], []]
    with_new = [*before, replica("c", nonce=2, made_s=101)]
    assert [names(side) for side in sides(rollout, with_new)] == [["a", "b"], ["c"]]
    remade = [*with_new, replica("d", nonce=1, made_s=102)]
    assert [names(side) for side in sides(rollout, remade)] == [["a", "b", "d"], ["c"]]


def test_words() -> None:
    """What, how far, and until when."""
    rollout = Rollout(from_revision=3, to_revision=4, share_percent=50, state="rolling")
    assert (change(rollout), state(rollout)) == ("revision 3 → 4", "up to 50 %")

    paused = Rollout(from_revision=3, to_revision=3, share_percent=20, state="paused", failed=2)
    assert (change(paused), state(paused)) == ("restart of revision 3", "paused at 20 %, 2 failed")
    paused.revert_time.FromSeconds(2_000_000_000)
    assert state(paused).startswith("paused at 20 %, 2 failed, reverts at ")


def test_counts() -> None:
    """Ready ones first; isolated ones apart; none is said."""
    replicas = [Replica(status="draining"), Replica(status="ready"), Replica(status="ready", isolated=True)]

    assert counted(replicas) == {"ready": 1, "draining": 1, "isolated": 1}
    assert (shown(replicas), shown([])) == ("1 ready, 1 draining, 1 isolated", "none")
