"""Samples → what is known of a candidate's answers. Pure: a tally and a sample in, a tally out.

The verdict is by fields. A field that stable's own answers differ in (a timestamp) says nothing against the candidate;
one in which the candidate differs more often than stable from itself does, as soon as that cannot be chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.metrics import bin_upper_ms, latency_bin
from easel_router.decide.compare import Compared, Difference
from easel_router.decide.rates import Z_99, excess, log_evidence

K = TypeVar("K", int, str)
Verdict = Literal["same", "differs", "not_enough_data"]

MOST_FIELDS = 200
"""Fields that a report names; what differs beyond them is one field more, OTHER."""
OTHER = "(other fields)"
EXAMPLES = 3
"""Kept of each field: the newest."""
ALPHA = 0.01
"""Chance that a candidate which answers as stable does is ever said to differ, over all fields and all looks."""
SAME_WITHIN = 0.03
"""A candidate is the same when no field differs in a larger share of samples beyond stable's own noise, at 99 %."""


class Example(Struct, frozen=True, kw_only=True):
    """One difference, as it was."""

    request: str
    stable: str
    candidate: str
    at_unix_s: float


class Field(Struct, frozen=True, kw_only=True):
    """How often answers differ in one field."""

    differ: int = 0
    itself: int = 0
    """Stable from itself."""
    examples: tuple[Example, ...] = ()


class Sample(Struct, frozen=True, kw_only=True):
    """One copy, replayed and compared."""

    request: str
    """See compare.request_line."""
    at_unix_s: float
    candidate: Compared
    itself: Compared | None = None
    """Stable's two answers; None: it was asked once."""
    stable_ms: float
    candidate_ms: float


class Tally(Struct, frozen=True, kw_only=True):
    """All samples so far. Its size is bounded, whatever they are."""

    samples: int = 0
    differ: int = 0
    twice: int = 0
    itself: int = 0
    fields: Mapping[str, Field] = {}
    not_compared: Mapping[str, int] = {}
    """Why → copies."""
    stable_ms: Mapping[int, int] = {}
    """metrics.latency_bin → answers."""
    candidate_ms: Mapping[int, int] = {}


def add(tally: Tally, sample: Sample) -> Tally:
    """The tally with one sample more."""
    itself = sample.itself
    return replace(
        tally,
        samples=tally.samples + 1,
        differ=tally.differ + (not sample.candidate.equal),
        twice=tally.twice + (itself is not None),
        itself=tally.itself + (itself is not None and not itself.equal),
        fields=_fields(tally.fields, sample),
        stable_ms=_counted(tally.stable_ms, latency_bin(sample.stable_ms)),
        candidate_ms=_counted(tally.candidate_ms, latency_bin(sample.candidate_ms)),
    )


def skip(tally: Tally, why: str) -> Tally:
    """The tally with one copy more that was not compared."""
    return replace(tally, not_compared=_counted(tally.not_compared, why))


def p50_ms(bins: Mapping[int, int]) -> float:
    """Median of counted latencies, exact to 2 %; 0 where there is none."""
    half, seen = sum(bins.values()) / 2, 0
    for number in sorted(bins):
        seen += bins[number]
        if seen >= half:
            return bin_upper_ms(number)
    return 0.0


def most_differing(tally: Tally) -> list[tuple[str, Field]]:
    """The fields, first the one in which the candidate differs the most beyond stable's own noise."""

    def order(item: tuple[str, Field]) -> tuple[float, int, str]:
        name, field = item
        found, _, _ = excess(field.differ, tally.samples, field.itself, tally.twice)
        return -found, -field.differ, name

    return sorted(tally.fields.items(), key=order)


def verdict(tally: Tally) -> tuple[Verdict, str]:
    """Whether the candidate answers as stable does, and the sentence that says why."""
    if not tally.samples:
        return "not_enough_data", "no answer was compared yet"
    fields = most_differing(tally)
    enough = math.log(max(len(fields), 1) / ALPHA)
    proven = [
        (name, field)
        for name, field in fields
        if log_evidence(field.differ, tally.samples, field.itself, tally.twice) >= enough
    ]
    if proven:
        more = f", and {len(proven) - 1} more {_plural('field', len(proven) - 1)}" if len(proven) > 1 else ""
        return "differs", _sentence(tally, *proven[0]) + more
    if not tally.twice:
        return "not_enough_data", f"{_of(tally)} compared, none of them with stable's own noise yet"
    worst, bound = _worst(tally, fields)
    if bound > SAME_WITHIN:
        lead = f"{_sentence(tally, worst, tally.fields[worst])}; " if worst else ""
        return "not_enough_data", f"{lead}with {_of(tally)} up to {bound:.1%} may differ beyond stable's own noise"
    lead = _sentence(tally, worst, tally.fields[worst]) if worst else f"no field differs in {_of(tally)}"
    return "same", f"{lead}: at most {bound:.1%} differ beyond stable's own noise (99 % sure)"


def _worst(tally: Tally, fields: list[tuple[str, Field]]) -> tuple[str, float]:
    """The field that may differ most beyond the noise, and by how much; a field that never differed is one, too."""
    _, _, bound = excess(0, tally.samples, 0, tally.twice, Z_99)
    worst = ""
    for name, field in fields:
        _, _, high = excess(field.differ, tally.samples, field.itself, tally.twice, Z_99)
        if high > bound:
            worst, bound = name, high
    return worst, bound


def _sentence(tally: Tally, name: str, field: Field) -> str:
    itself = f"stable differs from itself in {field.itself} of {tally.twice}"
    return f"{name} differs in {field.differ} of {_of(tally)} ({field.differ / tally.samples:.1%}), {itself}"


def _of(tally: Tally) -> str:
    return f"{tally.samples} {_plural('sample', tally.samples)}"


def _plural(word: str, number: int) -> str:
    return word if number == 1 else word + "s"


def _fields(before: Mapping[str, Field], sample: Sample) -> Mapping[str, Field]:
    itself = sample.itself or Compared()
    if sample.candidate.equal and itself.equal:
        return before
    made = dict(before)
    for name, difference in _named(sample.candidate, made).items():
        field = made.get(name, Field())
        examples = field.examples if difference is None else (*field.examples, _example(sample, difference))[-EXAMPLES:]
        made[name] = replace(field, differ=field.differ + 1, examples=examples)
    for name in _named(itself, made):
        field = made.get(name, Field())
        made[name] = replace(field, itself=field.itself + 1)
    return made


def _named(compared: Compared, known: Mapping[str, Field]) -> dict[str, Difference | None]:
    """Differences by the names under which they are counted; None: OTHER, of which no example is kept."""
    room = MOST_FIELDS - sum(name != OTHER for name in known)
    made: dict[str, Difference | None] = {}
    for difference in compared.differences:
        if difference.path in known:
            made[difference.path] = difference
        elif room > 0:
            made[difference.path] = difference
            room -= 1
        else:
            made[OTHER] = None
    return made | ({OTHER: None} if compared.more else {})


def _example(sample: Sample, difference: Difference) -> Example:
    return Example(
        request=sample.request, stable=difference.stable, candidate=difference.candidate, at_unix_s=sample.at_unix_s
    )


def _counted(counts: Mapping[K, int], key: K) -> Mapping[K, int]:
    return {**counts, key: counts.get(key, 0) + 1}
