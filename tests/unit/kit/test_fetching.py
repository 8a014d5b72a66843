"""How many facts one request asks for."""

from __future__ import annotations

import pytest

from easel_kit.bus import FETCH, fetch_size


@pytest.mark.parametrize(("waiting", "asked"), [(0, 1), (1, 1), (7, 7), (FETCH, FETCH), (5000, FETCH)])
def test_never_more_than_wait_and_never_none(waiting: int, asked: int) -> None:
    """A request for more than there is would keep what comes next."""
    assert fetch_size(waiting) == asked
