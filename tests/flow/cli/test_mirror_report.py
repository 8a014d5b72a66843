"""The report of compared answers, by the SDK and by the command line."""

from __future__ import annotations

import pytest

from easel_proto.v1.mirrors_pb2 import ComparisonReport, DifferenceExample, FieldDifference
from easel_sdk import Client, SyncClient
from easel_sdk.errors import NotFound
from tests.flow.cli.conftest import Easel, json_of
from tests.flow.sdk.platform import KEY, Platform


@pytest.fixture
def report(platform: Platform) -> ComparisonReport:
    """What the router knows of `ocr`."""
    example = DifferenceExample(request="GET /x", stable='"cat"', candidate='"dog"')
    made = ComparisonReport(
        name="ocr", target="@candidate", samples=200, differ=12, twice=40, verdict="differs",
        message="body.label differs in 12 of 200 samples (6.0%), stable differs from itself in 0 of 40",
        fields=[FieldDifference(path="body.label", differ=12, examples=[example])], not_compared={"TooMany": 7},
    )  # fmt: skip
    made.since.FromSeconds(1_900_000_000)
    platform.reports["ocr"] = made
    return made


async def test_sdk(platform: Platform, report: ComparisonReport) -> None:
    async with Client(platform.server, KEY) as easel:
        assert await easel.comparisons.report("ocr") == report
        assert (await easel.comparisons.reset("ocr")).samples == 0
        with pytest.raises(NotFound, match="no service nobody"):
            await easel.comparisons.report("nobody")
    assert platform.asked("Comparisons.Reset")[0].workspace == "default"


def test_sdk_sync(platform: Platform, report: ComparisonReport) -> None:
    with SyncClient(platform.server, KEY) as easel:
        assert easel.comparisons.report("ocr") == report
        assert easel.comparisons.reset("ocr").verdict == "not_enough_data"


def test_report(report: ComparisonReport, easel: Easel) -> None:
    text = easel("mirror", "report", "ocr").stdout
    assert text.splitlines()[1].endswith(f"differs: {report.message}")
    for line in ("body.label  12 (6.0%)  0 (0.0%)", "7 TooMany (over samples_per_s)", '  candidate  "dog"'):
        assert line in text


def test_report_as_data(report: ComparisonReport, easel: Easel) -> None:
    found = json_of(easel("mirror", "report", "ocr", "-o", "json"))
    assert (found["verdict"], found["not_compared"], found["since"][:4]) == ("differs", {"TooMany": 7}, "2030")
    assert found["fields"][0]["examples"][0]["candidate"] == '"dog"'
    assert easel("mirror", "report", "ocr", "-o", "name").stdout == "ocr\n"


def test_reset(platform: Platform, report: ComparisonReport, easel: Easel) -> None:
    result = easel("mirror", "report", "ocr", "--reset")
    assert "[OK] what was compared of ocr is forgotten" in result.stderr
    assert platform.reports["ocr"].samples == 0
    assert "Verdict  not enough data" in result.stdout


def test_a_service_that_is_not_there(platform: Platform, easel: Easel) -> None:
    result = easel("mirror", "report", "nobody")
    assert (result.exit_code, "NO_SUCH_SERVICE" in result.stderr) == (3, True)
