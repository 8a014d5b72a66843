"""Tables and errors as they are printed."""

from __future__ import annotations

import json

import pytest

from easel_cli.failure import exit_code, show
from easel_cli.output import pairs, table
from easel_contracts.errors import EaselError, FieldError, InvalidInput, NotFound
from easel_sdk.errors import CannotReach, ServiceFailed, TimedOut, Unavailable


def test_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Aligned by what is seen (wide characters too), nothing folded, no blanks at the end."""
    table(("NAME", "READY", "MESSAGE"), [("a", True, "x" * 300), ("服务", False, "two\nlines"), ("c", None, 1.5)])

    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == "NAME  READY  MESSAGE"
    assert lines[1] == f"a     yes    {'x' * 300}"
    assert lines[2] == "服务  no     two lines"
    assert lines[3] == "c     -      1.5"


def test_an_empty_table_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr: nothing for a program to read."""
    table(("NAME",), [], empty="none yet")

    assert capsys.readouterr() == ("", "none yet\n")


def test_pairs_keep_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Values of several lines stand below each other."""
    pairs([("A", "1\n2"), ("Long", "")])

    assert capsys.readouterr().out == "A     1\n      2\nLong  -\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EaselError("X", "x"), 1),
        (ServiceFailed("X", "x"), 1),
        (InvalidInput("x"), 2),
        (NotFound("X", "x"), 3),
        (Unavailable("X", "x"), 4),
        (CannotReach("X", "x"), 4),
        (TimedOut("X", "x"), 5),
    ],
)
def test_exit_codes(error: EaselError, code: int) -> None:
    """As documented."""
    assert exit_code(error) == code


def test_fields_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A message that repeats its fields is cut to its head, a hint that a field has already is left out."""
    field = FieldError(path="a.b", code="WRONG_TYPE", message="is no number", hint="write 1", line=2, column=5)
    show(InvalidInput("one thing is wrong: a.b: is no number", (field,), hint="write 1"))

    assert capsys.readouterr().err == (
        "error: one thing is wrong (INVALID_INPUT)\n"
        "  line 2, column 5: a.b: is no number (WRONG_TYPE)\n"
        "      → write 1\n"
    )


def test_a_failed_services_last_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """For people, and in JSON."""
    error = ServiceFailed("CrashLoop", "it ended", "look", ("one", "two\n"))
    show(error)
    show(error, as_json=True)

    text, document = capsys.readouterr().err.split("hint: look\n")
    assert text == "error: it ended (CrashLoop)\nlast output:\n  | one\n  | two\n"
    assert json.loads(document)["error"]["log_lines"] == ["one", "two\n"]
