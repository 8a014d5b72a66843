"""A report of compared answers, as people read it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from easel_cli.comparing import SHOWN_FIELDS, examples, load, printable, summary, tell
from easel_sdk.types import ComparisonReport, DifferenceExample, FieldDifference

BEGAN = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def a_report() -> ComparisonReport:
    made = ComparisonReport(
        name="ocr", target="@candidate", samples=200, differ=200, twice=40, differ_from_itself=40,
        not_compared={"TooMany": 12, "TooLarge": 3}, excess=0.06, excess_low=-0.0312, excess_high=0.1019,
        stable_p50_ms=12.34, candidate_p50_ms=11.9, verdict="differs",
        message="body.label differs in 12 of 200 samples (6.0%), stable differs from itself in 0 of 40",
        fields=[
            FieldDifference(path="body.label", differ=12, examples=[
                DifferenceExample(request='POST /x\n{"n": 1}', stable='"cat"', candidate="\x1b[2Jdog")]),
            FieldDifference(path="body.more", differ=3, differ_from_itself=0, examples=[
                DifferenceExample(request="GET /", stable="", candidate="2")]),
            FieldDifference(path="body.at", differ=200, differ_from_itself=40, examples=[
                DifferenceExample(request="GET /noise", stable="1", candidate="2")]),
        ],
    )  # fmt: skip
    made.since.FromDatetime(BEGAN)
    return made


def test_the_verdict_stands_on_top_and_the_load_in_a_sentence() -> None:
    rows = dict(summary(a_report(), BEGAN + timedelta(seconds=40)))
    assert list(rows)[:2] == ["Service", "Verdict"]
    assert str(rows["Verdict"]).startswith("differs: body.label differs in 12 of 200 samples")
    assert rows["Beyond noise"] == "+6.0% of the answers (95 % sure: -3.1% to +10.2%)"
    assert rows["Extra load"] == (
        "240 requests to stable and 200 to the candidate in 40 s (11.0 a second), beside the callers'"
    )
    assert rows["Not compared"] == "12 TooMany (over samples_per_s)\n3 TooLarge (the body is over body_kib)"


def test_an_example_is_lines_that_move_no_cursor() -> None:
    lines = list(examples(a_report()))
    assert [line for line in lines if line.startswith("  ")] == [
        '  request    POST /x {"n": 1}',
        '  stable     "cat"',
        "  candidate  \\x1b[2Jdog",
        "  request    GET /",
        "  stable     (not there)",
        "  candidate  2",
    ]
    assert printable("a\u202eb\n") == "a\\x202eb "


def test_the_table_has_a_line_per_field(capsys: pytest.CaptureFixture[str]) -> None:
    tell(a_report(), BEGAN)
    lines = capsys.readouterr().out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("FIELD"))
    assert [line.split() for line in lines[at : at + 4]] == [
        ["FIELD", "DIFFERS", "STABLE", "ITSELF"],
        ["body.label", "12", "(6.0%)", "0", "(0.0%)"],
        ["body.more", "3", "(1.5%)", "0", "(0.0%)"],
        ["body.at", "200", "(100.0%)", "40", "(100.0%)"],
    ]


def test_many_fields_are_cut_and_a_new_report_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    many = a_report()
    many.fields.extend(FieldDifference(path=f"body.f{n}", differ=1) for n in range(40))
    tell(many, BEGAN)
    assert f"… {43 - SHOWN_FIELDS} more; -o json shows all" in capsys.readouterr().out
    tell(ComparisonReport(name="ocr", verdict="not_enough_data", message="no answer was compared yet"), BEGAN)
    assert capsys.readouterr().out.splitlines() == [
        "Service  ocr", "Verdict  not enough data: no answer was compared yet",
    ]  # fmt: skip
    assert load(ComparisonReport(samples=1), BEGAN).startswith("1 requests to stable")
