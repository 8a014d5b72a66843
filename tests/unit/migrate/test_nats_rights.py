"""What each NATS user may publish."""

from __future__ import annotations

from typing import get_args

import pytest

from easel_contracts.facts import Entity
from easel_migrate.keys import NATS_USERS
from easel_migrate.nats_rights import OWNED, rights_of


def test_each_entity_has_one_owner() -> None:
    """Facts of an entity come from one process only."""
    owned = [entity for entities in OWNED.values() for entity in entities]

    assert sorted(owned) == sorted(get_args(Entity))


@pytest.mark.parametrize("user", NATS_USERS)
def test_nobody_may_do_everything(user: str) -> None:
    """No `>`, no API of streams outside migrate, and only the own inbox."""
    rights = rights_of(user)

    assert ">" not in rights.publish + rights.subscribe
    assert [s for s in rights.subscribe if s.startswith("_INBOX")] == [f"_INBOX_{user}.>"]
    if user != "migrate":
        assert not [s for s in rights.publish if s.startswith("$JS.API.>") or "DELETE" in s or "CREATE" in s]


def test_events_user_publishes_no_subject_of_ours() -> None:
    """Outsiders read."""
    assert not [s for s in rights_of("events").publish if s.startswith("easel.")]
