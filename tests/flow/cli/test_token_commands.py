"""Tokens by the command line."""

from __future__ import annotations

import pytest

from easel_contracts.errors import Conflict
from easel_proto.v1.tokens_pb2 import AccessToken
from tests.flow.cli.conftest import Easel, json_of
from tests.flow.sdk.platform import Platform


def test_ls(platform: Platform, easel: Easel) -> None:
    """Values, ends and limits; an older value is marked."""
    older = AccessToken(name="default.1", value="older-value", rotated=True)
    older.expire_time.FromSeconds(1_900_000_000)
    platform.tokens["ocr"] = [AccessToken(name="default", value="the-value"), older,
                              AccessToken(name="mobile", value="mobile-value", rate_limit=50)]  # fmt: skip

    lines = [line.split() for line in easel("token", "ls", "ocr").stdout.splitlines()]

    assert [line[:3] for line in lines] == [
        ["NAME", "TOKEN", "EXPIRES"], ["default", "the-value", "never"], ["default.1", "older-value", "2030-03-17"],
        ["mobile", "mobile-value", "never"],
    ]  # fmt: skip
    assert lines[2][-5:] == ["older", "value,", "until", "it", "expires"]
    assert lines[3][3] == "50"
    assert json_of(easel("token", "ls", "ocr", "-o", "json"))[0]["value"] == "the-value"
    assert easel("token", "ls", "ocr", "-o", "name").stdout.split() == ["default", "default.1", "mobile"]


def test_create(platform: Platform, easel: Easel) -> None:
    result = easel("token", "create", "ocr", "mobile", "--expires", "30d", "--rate-limit", "50")

    request = platform.asked("Tokens.Create")[0]
    assert (request.service, request.group, request.name, request.value) == ("ocr", "", "mobile", "")
    assert (request.expires_in_s, request.rate_limit) == (2_592_000, 50)
    assert request.idempotency_key
    assert "Token mobile of ocr is created" in result.stderr
    assert "Token      a-made-value" in result.stdout
    assert "RateLimit  50 requests a second" in result.stdout


def test_create_with_a_value_from_stdin(platform: Platform, easel: Easel) -> None:
    """So that it is in no list of processes."""
    easel("token", "create", "vision", "batch", "--group", "--value", "-", input="the-batch-value\n")

    request = platform.asked("Tokens.Create")[0]
    assert (request.service, request.group, request.value) == ("", "vision", "the-batch-value")


def test_rotate(platform: Platform, easel: Easel) -> None:
    """`default`, with an hour for the callers to change over, if nothing else is said."""
    first = easel("token", "rotate", "ocr")
    second = easel("token", "rotate", "ocr", "mobile", "--overlap", "0", "-o", "json")

    sent = [(r.service, r.name, r.overlap_s) for r in platform.asked("Tokens.Rotate")]
    assert sent == [("ocr", "default", 3600), ("ocr", "mobile", 0)]
    assert "the one before is good for 3600 s more" in first.stderr
    assert "a-newer-value" in first.stdout
    assert "the one before is refused from now on" in second.stderr
    assert json_of(second)["value"] == "a-newer-value"


def test_rm_asks(platform: Platform, easel: Easel) -> None:
    assert easel("token", "rm", "ocr", "mobile", input="n\n").exit_code == 1
    assert platform.asked("Tokens.Delete") == []

    assert easel("token", "rm", "ocr", "mobile", "-y").exit_code == 0

    assert [(r.service, r.name) for r in platform.asked("Tokens.Delete")] == [("ocr", "mobile")]


def test_what_the_platform_refuses(platform: Platform, easel: Easel) -> None:
    platform.fail("Tokens.Delete", Conflict("DEFAULT_TOKEN", "the token default cannot be deleted", "rotate it"))

    result = easel("token", "rm", "ocr", "default", "-y")

    assert result.exit_code == 1
    assert "cannot be deleted (DEFAULT_TOKEN)\nhint: rotate it" in result.stderr


@pytest.mark.parametrize("wrong", [("--expires", "soon"), ("--rate-limit", "-1")])
def test_bad_input_is_not_sent(platform: Platform, easel: Easel, wrong: tuple[str, str]) -> None:
    assert easel("token", "create", "ocr", "mobile", *wrong).exit_code == 2
    assert platform.calls == []


@pytest.mark.parametrize("name", ["ls", "create", "rotate", "rm"])
def test_help_has_an_example(easel: Easel, name: str) -> None:
    assert f"Example: easel token {name} " in easel("token", name, "--help").stdout
