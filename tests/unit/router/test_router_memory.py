"""What the router keeps: in memory, and on disk for its next start."""

from __future__ import annotations

from pathlib import Path

import msgspec

from easel_contracts.facts import Endpoint, GroupMember, GroupState, ReplicaState, ServiceState
from easel_contracts.spec import Resources, RevisionSpec
from easel_router.decide.snapshot import Token, TokenSet
from easel_router.lastgood import FILE, LastGood
from easel_router.model import Known
from easel_router.testing import a_plan


def service(uid: str = "one") -> ServiceState:
    spec = RevisionSpec(number=1, port=1, resources=Resources(cpu=1, memory_mib=1))
    return ServiceState(uid=uid, name="ocr", generation=1, wanted="running", instance=1, revision=spec)


def replica(state: str, row_version: int) -> ReplicaState:
    return ReplicaState(
        id="ocr-1-abcde", service="ocr", revision=1, generation=1, state=state, row_version=row_version,
        endpoints=(Endpoint(network="host", ip="127.0.0.1", port=20000),),
    )  # fmt: skip


def test_a_service_of_the_same_name_does_not_inherit_the_token() -> None:
    """Deleted and made again: the old token opens nothing."""
    known = Known("default", ())
    known.take_service(service("one"))
    known.tokens["ocr"] = TokenSet(tokens=(Token(value="old"),), version=7)
    known.take_service(service("one"))
    assert "ocr" in known.tokens
    known.take_service(service("two"))

    assert known.plan("ocr") is None


def test_a_service_made_while_its_namesake_is_removed_is_kept() -> None:
    """The removal that is under way forgets only what was deleted."""
    known = Known("default", ())
    known.take_service(service("two"))
    known.forget("ocr")
    assert "ocr" in known.services
    known.take_service(msgspec.structs.replace(service("two"), wanted="deleted"))
    known.forget("ocr")

    assert "ocr" not in known.services


def test_an_older_fact_changes_nothing() -> None:
    """Facts of a replica may come in any order."""
    known = Known("default", ())
    known.take_replica(replica("draining", 5))
    known.take_replica(replica("ready", 4))

    assert [r.state for r in known.replicas("ocr")] == ["draining"]
    assert known.finishing() == ["ocr-1-abcde"]


def test_an_ended_replica_is_forgotten() -> None:
    """It takes no memory and no place in the route."""
    known = Known("default", ())
    known.take_replica(replica("ready", 1))
    known.take_replica(replica("stopped", 2))

    assert known.replica("ocr-1-abcde") is None


def test_no_secret_in_a_representation() -> None:
    """Logs and tracebacks show versions only."""
    plan = a_plan("ocr", 1, token="hidden", more=(Token(name="partner", value="hidden2"),))
    assert "hidden" not in repr(plan)
    assert "partner" in repr(plan)


async def test_last_good_survives(tmp_path: Path) -> None:
    """Written 0600 and read back; a broken file counts as none."""
    kept = LastGood(tmp_path, 1)
    kept.put(a_plan("ocr", 1))
    await kept.flush()
    again = LastGood(tmp_path, 1)
    again.load()
    assert again.plans == {"ocr": a_plan("ocr", 1)}
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / FILE).write_bytes(b"\x00 broken")
    broken = LastGood(tmp_path, 1)
    broken.load()

    assert broken.plans == {}


async def test_last_good_of_another_epoch_is_dropped(tmp_path: Path) -> None:
    """After a restore: a service made after the backup would be routed for ever."""
    kept = LastGood(tmp_path, 1)
    kept.put(a_plan("ocr", 1))
    await kept.flush()

    restored = LastGood(tmp_path, 2)
    restored.load()

    assert restored.plans == {}


def group(*members: str, uid: str = "one") -> GroupState:
    made = tuple(GroupMember(service=name, state="grouping") for name in members)
    return GroupState(uid=uid, name="vision", generation=1, members=made)


def test_a_replica_concerns_the_groups_of_its_service_alone() -> None:
    """Whoever left, or whose group went, concerns none."""
    known = Known("default", ())
    known.take_group(group("ocr", "chat"))
    assert (known.groups_of("ocr"), known.groups_of("chat"), known.groups_of("x")) == (("vision",), ("vision",), ())
    known.take_group(group("ocr"))
    assert (known.groups_of("ocr"), known.groups_of("chat")) == (("vision",), ())
    known.forget_group("vision")

    assert known.groups_of("ocr") == ()


def test_a_group_of_the_same_name_does_not_inherit_the_token() -> None:
    """Its last member gone and another one made: the old token opens nothing."""
    known = Known("default", ())
    known.take_group(group("ocr"))
    known.group_tokens["vision"] = TokenSet(tokens=(Token(value="old"),), version=7)
    known.take_group(group("ocr"))
    assert known.group_plan("vision") is not None
    known.take_group(group("ocr", uid="two"))

    assert known.group_plan("vision") is None


def test_a_member_without_a_route_is_none_yet() -> None:
    """Nothing is sent where nobody answers."""
    known = Known("default", ())
    known.group_tokens["vision"] = TokenSet(tokens=(Token(value="group"),), version=1)
    known.take_group(group("ocr", "chat"))
    known.take_service(service())
    known.tokens["ocr"] = TokenSet(tokens=(Token(value="tok"),), version=1)
    known.take_replica(replica("ready", 1))
    made = known.group_plan("vision")

    assert made is not None
    assert [share.service for share in made.shares] == ["ocr"]
    assert made.scopes == ("vision", "vision.ocr")
