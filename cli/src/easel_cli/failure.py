"""Errors as people and scripts see them: text on stderr, and exit codes."""

from __future__ import annotations

import json
import sys

from easel_contracts.errors import EaselError, FieldError, InvalidInput, NotFound

FAILED, BAD_INPUT, NOT_FOUND, NO_PLATFORM, TIMED_OUT = 1, 2, 3, 4, 5


def exit_code(error: EaselError) -> int:
    """The process's exit code for an error."""
    from easel_sdk.errors import TimedOut, Unavailable

    if isinstance(error, InvalidInput):
        return BAD_INPUT
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, Unavailable):
        return NO_PLATFORM
    return TIMED_OUT if isinstance(error, TimedOut) else FAILED


def show(error: EaselError, *, as_json: bool = False) -> None:
    """Says on stderr what went wrong and what to do."""
    if as_json:
        print(json.dumps({"error": _document(error)}, ensure_ascii=False), file=sys.stderr)
        return
    fields = error.fields if isinstance(error, InvalidInput) else ()
    message = error.message
    if any(field.message in message for field in fields):
        message = message.partition(": ")[0]  # the rest are the fields again, which follow
    lines = [f"error: {message} ({error.code})", *(line for field in fields for line in _field(field))]
    log_lines = getattr(error, "log_lines", ())
    if log_lines:
        lines += ["last output:", *(f"  | {line.rstrip()}" for line in log_lines[-20:])]
    if error.hint and error.hint not in [field.hint for field in fields]:
        lines.append(f"hint: {error.hint}")
    print("\n".join(lines), file=sys.stderr)


def _field(field: FieldError) -> list[str]:
    place = f"line {field.line}, column {field.column}: " if field.line else ""
    head, *rest = field.message.split("\n")
    lines = [f"  {place}{field.path + ': ' if field.path else ''}{head} ({field.code})"]
    lines += [f"      {line}" for line in rest]
    if field.hint:
        lines.append(f"      → {field.hint}")
    return lines


def _document(error: EaselError) -> dict[str, object]:
    document: dict[str, object] = {"code": error.code, "message": error.message, "hint": error.hint}
    if isinstance(error, InvalidInput):
        document["fields"] = [
            {"path": f.path, "code": f.code, "message": f.message, "hint": f.hint, "line": f.line, "column": f.column}
            for f in error.fields
        ]
    log_lines = getattr(error, "log_lines", ())
    return document | ({"log_lines": list(log_lines)} if log_lines else {})
