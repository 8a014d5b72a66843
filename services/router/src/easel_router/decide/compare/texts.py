"""How similar two texts are: 1 less the share of what must be inserted and deleted to make one of the other.

Normalised Indel similarity, 2·LCS / (len(a) + len(b)), by Hyyrö's bit-parallel algorithm (rapidfuzz); unlike the ratio
of `difflib` it is the same both ways, and its cost is bounded. Long texts are compared word by word, and very long ones
in runs of words: `MOST_UNITS` bounds the work (about 10 ms).
"""

from __future__ import annotations

import re

from rapidfuzz.distance import Indel

MOST_UNITS = 8192
_WORD = re.compile(r"\s+|[^\s]{1,32}")


def similar(one: str, other: str, at_least: float) -> bool:
    """Whether two texts are equal, or at least so similar (0 to 1)."""
    if one == other:
        return True
    if at_least >= 1:
        return False
    return similarity(one, other) >= at_least


def similarity(one: str, other: str) -> float:
    """0 (nothing in common) to 1 (equal)."""
    if max(len(one), len(other)) <= MOST_UNITS:
        return float(Indel.normalized_similarity(one, other))
    words = _WORD.findall(one), _WORD.findall(other)
    run = -(-max(map(len, words)) // MOST_UNITS)
    return float(Indel.normalized_similarity(*(_runs(of, run) for of in words)))


def _runs(words: list[str], run: int) -> list[str]:
    return words if run == 1 else ["".join(words[at : at + run]) for at in range(0, len(words), run)]
