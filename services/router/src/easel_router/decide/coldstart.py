"""How long a cold start takes, learned from those seen: medians by phase. Pure.

The median of the last few, because the first one builds an environment that later ones find ready, and because one slow
start on a busy machine must not frighten every caller after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

KEPT = 5
"""Cold starts of a revision that count, the newest."""

PHASES = ("schedule", "fetch", "mount", "start", "probe", "route")
"""In the order in which they happen; fetch: code and environment."""

Sample = Mapping[str, float]


def typical(samples: Sequence[Sample]) -> dict[str, float]:
    """Median seconds of each phase and of the whole (`total`); empty where nothing was seen."""
    newest = samples[-KEPT:]
    if not newest:
        return {}
    names = dict.fromkeys([*PHASES, *(name for sample in newest for name in sample)])
    found = {name: median(sample.get(name, 0.0) for sample in newest) for name in names}
    found["total"] = median(sum(sample.values()) for sample in newest)
    return {name: round(value, 4) for name, value in found.items() if value or name == "total"}


def expected_s(known: Mapping[str, float], under_way_s: float) -> float | None:
    """Seconds that a request waits from now on, the cold start being under way; None: nothing is known.

    A start that takes longer than usual is expected to take a tenth of the usual time more, for ever.
    """
    total = known.get("total")
    return None if total is None else max(total - under_way_s, total / 10)
