"""Lengths of time as people write them: `90`, `90s`, `5m`, `1h`, `30d`."""

from __future__ import annotations

import re

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)")


def seconds_of(text: str, option: str) -> float:
    """Seconds that `text` means; raises InvalidInput that names the option."""
    from easel_contracts.errors import InvalidInput

    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"{option} {text!r} is no length of time", hint="a number of seconds, or 90s, 5m, 1h, 30d")
    return float(found.group(1)) * _UNITS[found.group(2)]
