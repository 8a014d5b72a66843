"""`mirror report`: how the answers to mirrored requests differ from the service's own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from easel_cli.command import Session, command
from easel_cli.options import PANEL, Name

if TYPE_CHECKING:
    from easel_sdk.types import ComparisonReport, FieldDifference

app = typer.Typer()
SHOWN_FIELDS = 20
SHOWN_EXAMPLES = 5
"""Fields whose examples are shown."""
_WHY = {
    "Broken": "the copy did not come whole",
    "Busy": "too many waited",
    "Error": "see the router's log",
    "Grpc": "gRPC is not replayed",
    "NoEnvoy": "no gateway was connected",
    "NoReplica": "a side had no replica in traffic",
    "Refused": "the gateway refused the replay",
    "TimedOut": "no answer within a minute",
    "TooLarge": "the body is over body_kib",
    "TooMany": "over samples_per_s",
    "Unreachable": "the connection broke",
    "WebSocket": "WebSockets are not replayed",
}


@command(app, "report", panel=PANEL, output=True,
         example="easel mirror report ocr\neasel mirror report ocr --reset\n"
                 "easel mirror report ocr -o json")  # fmt: skip
async def report(
    cli: Session,
    name: Name,
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was compared, and begin anew.")] = False,
) -> None:
    """Shows where answers of a mirror with --compare differ, beside how much the service differs from itself."""
    from datetime import UTC

    from easel_cli.output import note, show
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        found = await (client.comparisons.reset(name) if reset else client.comparisons.report(name))
    if reset:
        note(f"[OK] what was compared of {name} is forgotten")
    if not show(cli, to_dict(found), [name]):
        tell(found, datetime.now(UTC))


def tell(found: ComparisonReport, now: datetime) -> None:
    """Prints a report for people."""
    from easel_cli.output import pairs, table

    pairs(summary(found, now))
    if not found.fields:
        return
    print()
    rows = [(printable(f.path), *_counts(found, f)) for f in found.fields[:SHOWN_FIELDS]]
    table(("FIELD", "DIFFERS", "STABLE ITSELF"), rows)
    if (more := len(found.fields) - SHOWN_FIELDS) > 0:
        print(f"… {more} more; -o json shows all")
    for line in examples(found):
        print(line)


def summary(found: ComparisonReport, now: datetime) -> list[tuple[str, object]]:
    """The report without its fields: the verdict on top."""
    from easel_cli.output import when

    rows: list[tuple[str, object]] = [
        ("Service", found.name), ("Verdict", f"{found.verdict.replace('_', ' ')}: {printable(found.message)}"),
    ]  # fmt: skip
    if found.target:
        rows += [("Compared with", found.target), ("Since", when(found.since))]
    if found.samples:
        low, high = f"{found.excess_low:+.1%}", f"{found.excess_high:+.1%}"
        rows += [
            ("Samples", f"{found.samples}, of which {found.differ} differ ({found.differ / found.samples:.1%})"),
            ("Stable twice", f"{found.twice}, of which {found.differ_from_itself} differ from themselves"),
            ("Beyond noise", f"{found.excess:+.1%} of the answers (95 % sure: {low} to {high})"),
            ("Medians", f"stable {found.stable_p50_ms:.3g} ms, candidate {found.candidate_p50_ms:.3g} ms"),
            ("Extra load", load(found, now)),
        ]  # fmt: skip
    if found.not_compared:
        by_number = sorted(found.not_compared.items(), key=lambda item: (-item[1], item[0]))
        told = [f"{number} {why}" + (f" ({_WHY[why]})" if why in _WHY else "") for why, number in by_number]
        rows.append(("Not compared", "\n".join(told)))
    return rows


def load(found: ComparisonReport, now: datetime) -> str:
    """What the comparison cost both sides, in a sentence."""
    from easel_sdk.documents import to_datetime

    stable, candidate = found.samples + found.twice, found.samples
    since = to_datetime(found.since)
    took_s = max((now - since).total_seconds(), 1.0) if since else 1.0
    rate = f"{(stable + candidate) / took_s:.1f} a second"
    return (
        f"{stable} requests to stable and {candidate} to the candidate in {took_s:.0f} s ({rate}), beside the callers'"
    )


def examples(found: ComparisonReport) -> Iterator[str]:
    """Lines of the newest example of the fields that differ most, beyond stable's own noise."""
    from easel_cli.output import when

    shown = [f for f in found.fields if f.examples and _is_beyond_noise(found, f)]
    for field in shown[:SHOWN_EXAMPLES]:
        example = field.examples[0]
        yield ""
        yield f"{printable(field.path)}, at {when(example.at)}"
        yield f"  request    {printable(example.request)}"
        yield f"  stable     {printable(example.stable) or '(not there)'}"
        yield f"  candidate  {printable(example.candidate) or '(not there)'}"


def printable(text: str) -> str:
    """One line that moves no cursor: answers are not ours."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else f"\\x{ord(c):02x}" for c in text)


def _is_beyond_noise(found: ComparisonReport, field: FieldDifference) -> bool:
    return field.differ * max(found.twice, 1) > field.differ_from_itself * found.samples


def _counts(found: ComparisonReport, field: FieldDifference) -> tuple[str, str]:
    own = f" ({field.differ_from_itself / found.twice:.1%})" if found.twice else ""
    return f"{field.differ} ({field.differ / found.samples:.1%})", f"{field.differ_from_itself}{own}"
