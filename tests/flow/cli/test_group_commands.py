"""Groups by the command line."""

from __future__ import annotations

import json

import pytest

from easel_proto.v1.groups_pb2 import Group
from tests.flow.cli.conftest import Easel, json_of
from tests.flow.sdk.groups import letters
from tests.flow.sdk.platform import Platform


@pytest.fixture(autouse=True)
def group(platform: Platform) -> Group:
    """The group `letters`."""
    return letters(platform)


def test_release_speaks_as_eas_does(platform: Platform, easel: Easel) -> None:
    """Without options: takes part, by its replicas."""
    result = easel("release", "ocr_b")

    request = platform.asked("Groups.Release")[0]
    assert (request.service, request.traffic_state, request.HasField("weight")) == ("ocr_b", "grouping", False)
    assert result.stderr == "Releasing service [ocr_b] in group [letters] with weight [-1], service status: [Waiting]\n"
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["MEMBER", "TRAFFIC"], ["ocr_a", "grouping"], ["ocr_b", "grouping"]]


def test_release_with_a_weight_and_standalone(platform: Platform, easel: Easel) -> None:
    weighed = easel("release", "ocr_b", "--weight", "40", "-o", "json")
    alone = easel("release", "ocr_b", "--standalone")
    back = easel("release", "ocr_b", "--grouping", "-o", "name")

    requests = platform.asked("Groups.Release")
    assert [r.traffic_state for r in requests] == ["grouping", "standalone", "grouping"]
    assert requests[0].weight == 40
    assert (json_of(weighed)["traffic_mode"], json_of(weighed)["members"][1]["weight"]) == ("customized", 40)
    assert "Releasing service [ocr_b] in group [letters] as [standalone]" in alone.stderr
    assert back.stdout == "letters\n"


@pytest.mark.parametrize("weight", ["1001", "-2", "much"])
def test_weights_out_of_range_are_not_sent(platform: Platform, easel: Easel, weight: str) -> None:
    assert easel("release", "ocr_b", f"--weight={weight}").exit_code == 2
    assert platform.asked("Groups.Release") == []


def test_a_service_in_no_group(easel: Easel) -> None:
    result = easel("release", "lone")

    assert result.exit_code == 1
    assert "lone belongs to no group (NO_GROUP)\nhint: metadata.group" in result.stderr


def test_ls(platform: Platform, easel: Easel) -> None:
    """A line for each group, with who takes which part."""
    head, row = easel("group", "ls").stdout.splitlines()

    assert head.split() == ["GROUP", "MODE", "MEMBERS", "RATE", "CONCURRENCY", "CREATETIME", "PATH"]
    assert row.split("  ")[:3] == ["letters", "auto", "ocr_a 100 %, ocr_b standalone"]
    assert "100/s" in row
    assert easel("group", "ls", "-o", "name").stdout == "letters\n"
    assert json_of(easel("group", "ls", "-o", "json"))[0]["members"][0]["service"] == "ocr_a"
    platform.groups.clear()
    assert "no groups: metadata.group" in easel("group", "ls").stderr


def test_desc(easel: Easel) -> None:
    """What it is, why members get what they get, and the members."""
    text = easel("group", "desc", "letters").stdout
    head, members = text.split("\n\n")

    shown = dict(line.split(None, 1) for line in head.splitlines())
    assert (shown["Group"], shown["TrafficMode"], shown["RateLimit"]) == ("letters", "auto", "100 requests per second")
    assert shown["ConcurrencyLimit"] == "no limit"
    assert shown["Reasons"] == "control is content → ask control"
    assert members.splitlines()[1].split() == [
        "ocr_a", "grouping", "by", "replicas", "100", "%", "2", "Running", "/api/predict/letters.ocr_a",
    ]  # fmt: skip
    assert json_of(easel("group", "desc", "letters", "-o", "json"))["rate_limit"] == 100
    assert easel("group", "desc", "nothing").exit_code == 3


def test_mode(platform: Platform, easel: Easel) -> None:
    result = easel("group", "mode", "letters", "customized")

    assert platform.asked("Groups.Update")[0].traffic_mode == "customized"
    assert "[OK] Group letters shares its requests by weights" in result.stderr
    assert easel("group", "mode", "letters", "equal").exit_code == 2


def test_limit(platform: Platform, easel: Easel) -> None:
    """What is not given is not sent; 0 takes a limit away; nothing is bad input."""
    result = easel("group", "limit", "letters", "--concurrency", "7")
    off = easel("group", "limit", "letters", "--rate", "0", "-o", "json")

    first, second = platform.asked("Groups.Update")
    assert (first.HasField("rate_limit"), first.concurrency_limit) == (False, 7)
    assert (second.HasField("rate_limit"), second.HasField("concurrency_limit")) == (True, False)
    assert "[OK] Group letters lets through: 100 requests per second at most, 7 at a time at most" in result.stderr
    assert json_of(off)["rate_limit"] == 0
    easel("group", "limit", "letters", "--concurrency", "0")
    assert "lets through: all that comes" in easel("group", "limit", "letters", "--rate", "0").stderr
    empty = easel("group", "limit", "letters")
    assert (empty.exit_code, "--rate N" in empty.stderr) == (2, True)


def test_predict_calls_a_group(easel: Easel) -> None:
    """And a member by way of it, with the group's token."""
    for name in ("letters", "letters.ocr_a"):
        assert easel("predict", name, "--body", "{}").exit_code == 0, name


def test_ls_and_desc_of_services_show_the_group(platform: Platform, easel: Easel) -> None:
    easel("create", "-", input=json.dumps({"name": "ocr_a"}))
    easel("create", "-", input=json.dumps({"name": "lone"}))
    service = platform.services["ocr_a"]
    service.service_group, service.traffic_state, service.weight = "letters", "grouping", 40

    head, *rows = (line.split() for line in easel("ls").stdout.splitlines())
    assert [(row[0], row[head.index("GROUP")]) for row in rows] == [("lone", "-"), ("ocr_a", "letters")]

    def described(name: str) -> str:
        lines = easel("desc", name).stdout.splitlines()
        return next(line.split(None, 1)[1] for line in lines if line.startswith("ServiceGroup"))

    assert described("ocr_a") == "letters (grouping, weight 40)"
    service.weight = -1
    assert described("ocr_a") == "letters (grouping, by replicas)"
    service.traffic_state = "standalone"
    assert described("ocr_a") == "letters (standalone: none of its traffic)"
    assert described("lone") == "-"


@pytest.mark.parametrize("words", [("release",), ("group", "ls"), ("group", "desc"), ("group", "mode"),
                                   ("group", "limit")])  # fmt: skip
def test_help_has_an_example(easel: Easel, words: tuple[str, ...]) -> None:
    result = easel(*words, "--help")

    assert result.exit_code == 0
    assert f"Example: easel {' '.join(words)}" in result.stdout
