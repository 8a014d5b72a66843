"""Simulated releases, judged by Easel's own code and, beside it, by the rules of other tools.

Each release is traffic of 100 requests/s, 0.1 % errors and lognormal latency, with noise that both arms share, and a
candidate that does one thing otherwise. All rules at a flat 10 % see the same requests. Then whole canaries with their
steps, as control takes them; and releases of five requests a minute, by steps and at 50 %, whose verdict must be right
or "not enough data", which is counted.

    python benchmarks/canary.py [--runs 300] [--equal 1000] [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median

from canary_ramp import Outcome, whole_canary
from canary_rules import CHUNK_S, NOT_WORSE, UNKNOWN, WORSE, Change, Chunk, Flagger, Kayenta, Naive, Traffic
from measuring import verdict

from easel_control.decide.evidence import (
    Evidence,
    Limits,
    begin,
    breach,
    freeze,
    is_frozen,
    not_worse,
    observe,
    share_of,
)

LIMITS = Limits()
FLAT_PERMILLE = 100
RATE = 100.0
WATCHED_S = 1800
SCARCE_RATE, SCARCE_PERMILLE, SCARCE_S = 5 / 60, 500, (2 * 3600, 12 * 3600)
"""Five requests a minute, at half of the traffic: in the default time limit, and in a night."""

EQUAL = Change("none (false alarm)", wrong=WORSE)
CHANGES = (
    EQUAL,
    Change("errors to 0.3 %", errors=0.003, wrong=""),
    Change("errors to 1 %", errors=0.01),
    Change("errors to 5 %", errors=0.05),
    Change("latency +10 %", latency=1.1, wrong=""),
    Change("latency +25 %", latency=1.25),
    Change("latency x2", latency=2.0),
)
SCARCE = (
    EQUAL,
    Change("errors to 5 %", errors=0.05),
    Change("errors to 50 %", errors=0.5),
    Change("latency x2", latency=2.0),
    Change("latency x5", latency=5.0),
)
OURS, NAIVE, FLAGGER, KAYENTA = "Easel", "naive z-test each 10 s", "Flagger-like, ramp", "Kayenta-like, 10/20/30 min"
FALSE_PERCENT = 1.0
FOUND_WITHIN_S = {"errors to 5 %": 15.0, "latency +25 %": 60.0}
RAMP_RATES = {"100 requests/s": (100.0, 1), "10 requests/s": (10.0, 1), "5 requests a minute": (SCARCE_RATE, 5)}
"""Requests a second, and how often control looks here."""
RULES = (OURS, NAIVE, FLAGGER, KAYENTA)

Found = dict[str, tuple[int | None, int]]
"""Rule → when it went back, in seconds (None: never), and the candidate's requests until then."""


def one_release(change: Change, seed: int) -> Found:
    """One release under every rule; ours, naive peeking and Kayenta's see the same requests."""
    found: Found = {FLAGGER: flagger(change, seed)}
    traffic, evidence = Traffic(change, RATE, seed), baseline(RATE, seed)
    began_s, naive, kayenta, spent = evidence.through_unix_s + 1, Naive(), Kayenta(), 0
    for from_s in range(0, WATCHED_S, CHUNK_S):
        chunk = traffic.next(FLAT_PERMILLE / 1000)
        if OURS not in found:
            evidence, breached_s = judged(evidence, chunk, began_s + from_s, FLAT_PERMILLE)
            if breached_s is not None:
                found[OURS] = breached_s - began_s + 1, evidence.candidate.requests
        for name, rule in ((NAIVE, naive), (KAYENTA, kayenta)):
            if name not in found:
                rule.take(chunk, from_s)
                if rule.at_s is not None:
                    found[name] = rule.at_s, spent + int((chunk.candidate & (chunk.second < rule.at_s - from_s)).sum())
        spent += int(chunk.candidate.sum())
        if len(found) == len(RULES):
            break
    return {name: found.get(name, (None, spent)) for name in RULES}


def judged(evidence: Evidence, chunk: Chunk, begin_s: int, permille: int) -> tuple[Evidence, int | None]:
    """Easel's own code over a minute, second by second as control does it; when there was a breach."""
    for second in chunk.seconds(begin_s):
        evidence = observe(evidence, second, share_of(evidence, permille, biased=False))
        if breach(evidence, LIMITS):
            return evidence, second.unix_s
    return evidence, None


def baseline(rate: float, seed: int) -> Evidence:
    """Evidence after a minute of stable alone, or as many as its thresholds need."""
    traffic, evidence, from_s = Traffic(EQUAL, rate, seed + 10**6), begin(LIMITS), 1
    while not is_frozen(evidence):
        for second in traffic.next(0.0).seconds(from_s):
            evidence = observe(evidence, second, 0.0)
        evidence, from_s = freeze(evidence), from_s + CHUNK_S
    return evidence


def flagger(change: Change, seed: int) -> tuple[int | None, int]:
    """A release of its own: the rule has its own weights."""
    traffic, rule, spent = Traffic(change, RATE, seed), Flagger(), 0
    for minute in range(WATCHED_S // CHUNK_S):
        chunk = traffic.next(rule.share(minute))
        rule.take(chunk, minute * CHUNK_S)
        spent += int(chunk.candidate.sum())
        if rule.at_s is not None:
            break
    return rule.at_s, spent


def scarce_release(change: Change, watched_s: int, seed: int) -> str:
    """What is known of a release of few requests when its time is over."""
    traffic, evidence = Traffic(change, SCARCE_RATE, seed), baseline(SCARCE_RATE, seed)
    began_s = evidence.through_unix_s + 1
    for from_s in range(0, watched_s, CHUNK_S):
        evidence, breached_s = judged(evidence, traffic.next(SCARCE_PERMILLE / 1000), began_s + from_s, SCARCE_PERMILLE)
        if breached_s is not None:
            return WORSE
        if not_worse(evidence, LIMITS).proven:
            return NOT_WORSE
    return UNKNOWN


def show_flat(pool: ProcessPoolExecutor, runs: int, equal: int) -> bool:
    """The table of changes by rules, and its gates."""
    print(f"{RATE:g} requests/s, candidate at {FLAT_PERMILLE / 10:g} %, {WATCHED_S // 60} min, {runs} releases each "
          f"({equal} without a change): went back / median time (requests of the candidate)")  # fmt: skip
    rows, met = [["change", *RULES]], []
    for change in CHANGES:
        releases = list(pool.map(partial(one_release, change), range(equal if change is EQUAL else runs), chunksize=4))
        rows.append([change.name, *(cell([release[rule] for release in releases]) for rule in RULES)])
        times = [WATCHED_S if at is None else at for at, _ in (release[OURS] for release in releases)]
        if change is EQUAL:
            false = 100 * sum(release[OURS][0] is not None for release in releases) / len(releases)
            met.append(verdict(f"false rollback of a canary ({equal} releases)", false, FALSE_PERCENT, "%"))
        elif change.name in FOUND_WITHIN_S:
            gate = FOUND_WITHIN_S[change.name]
            met.append(verdict(f"{change.name} found at 10 %, 100 requests/s (median)", median(times), gate, "s"))
    table(rows)
    return all(met)


def show_scarce(pool: ProcessPoolExecutor, runs: int, horizons: Sequence[int]) -> bool:
    """Verdicts at five requests a minute, and how many are wrong."""
    print(f"\n{60 * SCARCE_RATE:g} requests a minute, candidate at {SCARCE_PERMILLE / 10:g} %, {runs} releases each: "
          f"{WORSE} / {NOT_WORSE} / {UNKNOWN}")  # fmt: skip
    rows, wrong, total = [["change", *(f"after {at_s // 3600} h" for at_s in horizons)]], 0, 0
    for change in SCARCE:
        cells = []
        for at_s in horizons:
            seen = Counter(pool.map(partial(scarce_release, change, at_s), range(runs), chunksize=4))
            cells.append(" / ".join(str(seen[what]) for what in (WORSE, NOT_WORSE, UNKNOWN)))
            wrong += seen[change.wrong]
            total += runs
        rows.append([change.name, *cells])
    table(rows)
    return verdict(f"wrong verdicts at 5 requests a minute ({total} releases)", 100 * wrong / total, FALSE_PERCENT, "%")


def show_ramp(pool: ProcessPoolExecutor, runs: int, equal: int) -> bool:
    """Whole canaries by traffic, and their gates."""
    print(f"\nwhole canaries, {runs} of each change ({equal} without one): promoted / went back, median times "
          "(requests of the candidate until then); the rest waits for data")  # fmt: skip
    rows, met, wrong, scarce = [["change", *RAMP_RATES]], [], 0, 0
    for change in (*CHANGES, SCARCE[2]):
        cells = []
        for name, (rate, tick_s) in RAMP_RATES.items():
            count = equal if change is EQUAL else runs
            ended = list(pool.map(partial(whole_canary, change, rate, tick_s), range(count), chunksize=4))
            cells.append(ramp_cell(ended))
            if tick_s > 1:
                wrong += sum(one.verdict == change.wrong for one in ended)
                scarce += count
            elif change is EQUAL:
                false = 100 * sum(one.verdict == WORSE for one in ended) / count
                met.append(verdict(f"false rollback of a whole canary, {name} ({count})", false, FALSE_PERCENT, "%"))
        rows.append([change.name, *cells])
    table(rows)
    what = f"wrong verdicts of whole canaries at 5 requests a minute ({scarce})"
    return all([*met, verdict(what, 100 * wrong / scarce, FALSE_PERCENT, "%")])


def ramp_cell(ended: list[Outcome]) -> str:
    """Share, median time and median requests of those that were promoted, and of those that went back."""
    cells = []
    for what in (NOT_WORSE, WORSE):
        of = [one for one in ended if one.verdict == what]
        share = f"{100 * len(of) / len(ended):.3g} %"
        cells.append(f"{share} {median(o.took_s for o in of):.0f} s ({median(o.requests for o in of):,.0f})" if of
                     else share)  # fmt: skip
    return " / ".join(cells)


def cell(found: list[tuple[int | None, int]]) -> str:
    """Share that went back, the median time and the median of requests that the candidate got until then."""
    back = [(at_s, requests) for at_s, requests in found if at_s is not None]
    share = f"{100 * len(back) / len(found):.3g} %"
    if not back:
        return share
    return f"{share} / {median(at for at, _ in back):.0f} s ({median(n for _, n in back):,.0f})"


def table(rows: list[list[str]]) -> None:
    """As Markdown."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in [rows[0], ["-" * width for width in widths], *rows[1:]]:
        print("| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |")


def main() -> int:
    """Exit code 0 where the gates hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="releases of each change")
    parser.add_argument("--equal", type=int, default=1000, help="releases without a change")
    parser.add_argument("--ramps", type=int, default=80, help="whole canaries of each change; five times without one")
    parser.add_argument("--scarce", type=int, default=200, help="releases of each change with few requests")
    parser.add_argument("--quick", action="store_true", help="few of each; a smoke test")
    arguments = parser.parse_args()
    runs, equal, ramps, scarce = arguments.runs, arguments.equal, arguments.ramps, arguments.scarce
    if arguments.quick:
        runs, equal, ramps, scarce = 8, 100, 4, 8
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        met = [
            show_flat(pool, runs, equal),
            show_ramp(pool, ramps, 5 * ramps),
            show_scarce(pool, scarce, SCARCE_S[:1] if arguments.quick else SCARCE_S),
        ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
