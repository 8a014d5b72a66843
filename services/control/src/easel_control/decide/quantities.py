"""Quantities as Kubernetes writes them, in Easel's units."""

from __future__ import annotations

import math
import re

_BYTES = {"M": 10**6, "G": 10**9, "T": 10**12, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def cores_of(value: float | str) -> float:
    """Cores: a number, or text such as `500m` or `2`, of the form key.CORES."""
    if isinstance(value, str) and value.endswith("m"):
        return int(value[:-1]) / 1000
    return float(value)


def mib_of(value: float | str) -> int:
    """MiB, rounded up: a number of them, or text such as `512Mi` or `2G`, of the form key.SIZE."""
    if not isinstance(value, str):
        return math.ceil(value)
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", value).groups()  # type: ignore[union-attr]
    return math.ceil(float(number) * _BYTES[unit] / 2**20)


def mib_of_gib(gib: float) -> int:
    """MiB of a number of GiB, rounded up."""
    return math.ceil(gib * 1024)
