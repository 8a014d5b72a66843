"""Mirroring by the command line."""

from __future__ import annotations

import pytest

from easel_proto.v1.mirrors_pb2 import CompareOptions, Mirror
from tests.flow.cli.conftest import Easel, json_of
from tests.flow.sdk.platform import Platform


def test_set_says_what_it_costs(platform: Platform, easel: Easel) -> None:
    """EAS's message; the load as a warning."""
    result = easel("mirror", "ocr", "--target", "echo", "-t", "tagger", "--ratio", "30")

    request = platform.asked("Mirrors.Set")[0]
    assert (request.name, list(request.targets), request.percent) == ("ocr", ["echo", "tagger"], 30)
    assert not request.HasField("compare")
    assert request.idempotency_key
    assert "Traffic mirroring is ON for service [ocr], ratio [30%]" in result.stderr
    assert "warning: 30 % of the requests are executed elsewhere, too" in result.stderr
    assert "Targets   echo, tagger" in result.stdout
    assert "Compared  no" in result.stdout


def test_compare(platform: Platform, easel: Easel) -> None:
    result = easel(
        "mirror", "ocr", "--target", "@candidate", "--ratio", "10", "--compare", "--no-side-effects", "--ignore",
        "meta.took_ms", "--ignore", "boxes[].id", "--tolerance", "0.01", "--samples-per-s", "5", "--twice", "50",
        "--text-similarity", "0.9", "--body-kib", "64", "-o", "json",
    )  # fmt: skip

    assert platform.asked("Mirrors.Set")[0].compare == CompareOptions(
        samples_per_s=5, twice_percent=50, body_kib=64, tolerance=0.01, ignore=["meta.took_ms", "boxes[].id"],
        text_similarity=0.9, no_side_effects=True,
    )  # fmt: skip
    assert json_of(result)["compare"]["ignore"] == ["meta.took_ms", "boxes[].id"]
    assert result.exit_code == 0


def test_a_comparison_has_to_be_confirmed_for_each_target(platform: Platform, easel: Easel) -> None:
    """Once said, it holds for changes of the other settings, but not for another target."""
    assert easel("mirror", "ocr", "-t", "echo", "-r", "10", "--compare").exit_code == 2
    assert easel("mirror", "ocr", "-t", "echo", "-r", "10", "--compare", "--no-side-effects").exit_code == 0
    assert easel("mirror", "ocr", "-r", "20").exit_code == 0

    assert platform.mirrors["ocr"].compare.no_side_effects
    assert easel("mirror", "ocr", "-t", "other").exit_code == 2


def test_what_is_not_given_stays(platform: Platform, easel: Easel) -> None:
    compare = CompareOptions(samples_per_s=5, ignore=["a"], tolerance=0.5, no_side_effects=True)
    platform.mirrors["ocr"] = Mirror(name="ocr", targets=["echo"], percent=10, compare=compare)

    result = easel("mirror", "ocr", "--ratio", "0")
    easel("mirror", "ocr", "--ignore", "b", "--ignore", "c")
    easel("mirror", "ocr", "--no-compare")

    first, second, third = platform.asked("Mirrors.Set")
    assert "Traffic mirroring is OFF for service [ocr], ratio [0%]" in result.stderr
    assert (list(first.targets), first.percent, first.compare) == (["echo"], 0, compare)
    assert (list(second.compare.ignore), second.compare.tolerance) == (["b", "c"], 0.5)
    assert not third.HasField("compare")


def test_shown_without_options(platform: Platform, easel: Easel) -> None:
    compare = CompareOptions(samples_per_s=5, twice_percent=20, body_kib=256, tolerance=0.01, ignore=["a", "b"],
                             text_similarity=0.9, no_side_effects=True)  # fmt: skip
    platform.mirrors["ocr"] = Mirror(name="ocr", targets=["echo"], percent=0, compare=compare, warnings=["it is off"])

    text = easel("mirror", "ocr").stdout

    assert platform.asked("Mirrors.Set") == []
    for line in ("Ratio     0 % (off)", "Compared  at most 5 a second, 20 % of them twice, bodies up to 256 KiB",
                 "ignored: a, b", "numbers are equal up to a difference of 0.01", "similarity of 0.9",
                 "Load      it is off"):  # fmt: skip
        assert line in text
    assert json_of(easel("mirror", "ocr", "-o", "json"))["targets"] == ["echo"]
    assert easel("mirror", "ocr", "-o", "name").stdout == "ocr\n"


def test_nothing_to_show_and_nothing_to_set(platform: Platform, easel: Easel) -> None:
    """Not found; and what is missing for the first setting is named."""
    shown = easel("mirror", "ocr")
    assert (shown.exit_code, "NO_MIRROR" in shown.stderr) == (3, True)
    for given, missing in ((("-r", "10"), "--target must"), (("-t", "echo"), "--ratio must")):
        result = easel("mirror", "ocr", *given)
        assert result.exit_code == 2
        assert missing in result.stderr
    result = easel("mirror", "ocr", "-t", "echo", "-r", "10", "--ignore", "a")
    assert (result.exit_code, "add --compare" in result.stderr) == (2, True)
    assert platform.asked("Mirrors.Set") == []


def test_rm(platform: Platform, easel: Easel) -> None:
    platform.mirrors["ocr"] = Mirror(name="ocr", targets=["echo"], percent=10)

    result = easel("mirror", "rm", "ocr")

    assert "Traffic mirroring is OFF for service [ocr]" in result.stderr
    assert platform.mirrors == {}
    assert easel("mirror", "rm", "ocr").exit_code == 3


def test_the_word_set_reaches_services_that_are_called_like_a_command(platform: Platform, easel: Easel) -> None:
    """Options may also come first."""
    easel("mirror", "set", "report", "-t", "echo", "-r", "1")
    easel("mirror", "-t", "echo", "-r", "2", "ocr")

    assert [(r.name, r.percent) for r in platform.asked("Mirrors.Set")] == [("report", 1), ("ocr", 2)]


@pytest.mark.parametrize("name", ["set", "rm"])
def test_help_of_mirror_has_an_example(easel: Easel, name: str) -> None:
    assert "Example: easel mirror " in easel("mirror", name, "--help").stdout
    assert "Usage: easel mirror " in easel("mirror", "--help").stdout
