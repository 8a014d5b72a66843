"""Lengths of time on the command line."""

from __future__ import annotations

import pytest

from easel_cli.durations import seconds_of
from easel_contracts.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("30d", 2_592_000)]
)
def test_lengths(text: str, seconds: float) -> None:
    assert seconds_of(text, "--expires") == seconds


@pytest.mark.parametrize("text", ["", "-1", "5w", "m", "1h30m", "1e3", "inf", "5 m"])
def test_no_lengths(text: str) -> None:
    with pytest.raises(InvalidInput, match="--expires"):
        seconds_of(text, "--expires")
