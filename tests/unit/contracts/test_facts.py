"""Facts: the whole way there and back, tolerance of newer senders, subjects."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from easel_contracts import facts
from easel_contracts.facts import Cause, Fact, NodeState, ScaleState
from easel_contracts.ids import SERVICE_NAME, fact_subject, replica_id, uuid7


def sample(**changes: object) -> Fact:
    state = ScaleState(service="ocr", generation=3, number=7, before=1, wanted=2, reason="Qps", message="m")
    fact = Fact(
        id=uuid7(), entity="scale", verb="decided", workspace="default", key="ocr", epoch=1, generation=3,
        row_version=7, at=datetime(2026, 1, 1, tzinfo=UTC), cause=Cause(actor="autoscaler", reason="Qps"),
        data=facts.raw(state),
    )  # fmt: skip
    return msgspec.structs.replace(fact, **changes)


def test_there_and_back() -> None:
    """Encoding and decoding loses nothing."""
    fact = sample()

    assert facts.encode(facts.decode(facts.encode(fact))) == facts.encode(fact)
    assert facts.state_of(facts.decode(facts.encode(fact)), ScaleState).wanted == 2


def test_fields_of_a_newer_sender_are_ignored() -> None:
    """A reader of version N reads what N + 1 wrote."""
    newer = msgspec.msgpack.decode(facts.encode(sample()))
    newer["colour"] = "blue"
    newer["data"]["shape"] = "round"
    newer["schema_version"] = 2

    read = facts.decode(msgspec.msgpack.encode(newer))

    assert facts.state_of(read, ScaleState).number == 7


def test_another_entitys_data_is_refused() -> None:
    """Reading a scale fact as a node raises; nothing is made up."""
    with pytest.raises(msgspec.ValidationError):
        facts.state_of(sample(), NodeState)


def test_every_entity_has_verbs_and_a_struct() -> None:
    """The table of facts is complete."""
    assert set(facts.VERBS) == set(facts.STATE_OF)


def test_subjects_are_one_token_per_part() -> None:
    """A key with dots or wildcards cannot reach another subject."""
    assert fact_subject("default", "node", "a.b>*c d", "ready") == "easel.fact.default.node.a_b__c_d.ready"


def test_ids() -> None:
    """Ids of version 7 sort by time; replica ids carry service and revision."""
    assert uuid7()[14] == "7"
    assert replica_id("ocr", 3).startswith("ocr-3-")
    assert SERVICE_NAME.match("ocr_1")
    assert not SERVICE_NAME.match("ocr-1")
