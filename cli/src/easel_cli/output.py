"""Printing answers: tables for people, JSON, YAML and names for programs. Results go to stdout, the rest to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from easel_cli.command import Format, Session

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

_GREEN, _YELLOW, _RED = "\x1b[32m", "\x1b[33m", "\x1b[31m"
_COLOURS = {
    **dict.fromkeys(("Running", "ready", "running", "live"), _GREEN),
    **dict.fromkeys(("Failed", "failed", "lost", "refused"), _RED),
    **dict.fromkeys(("unready", "not_ready", "not ready", "Waiting"), _YELLOW),
}


def note(text: str) -> None:
    """A word to the user that is no result."""
    print(text, file=sys.stderr, flush=True)


def show(session: Session, data: Any, names: Iterable[str] = ()) -> bool:
    """Prints `data` as the session asks; False where a table is wanted, which the caller makes."""
    if session.output is Format.json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
    elif session.output is Format.yaml:
        import yaml

        print(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), end="")
    elif session.output is Format.name:
        for name in names:
            print(name)
    else:
        return False
    return True


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "") -> None:
    """Columns without borders, so that they can be cut and grepped; each row is one line, however long."""
    cells = [[_shown(cell).replace("\n", " ") for cell in row] for row in rows]
    if not cells and empty:
        note(empty)
        return
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(headers, *cells, strict=True)]
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for row in (headers, *cells):
        padded = (
            _coloured(cell, coloured) + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        print("  ".join(padded).rstrip())


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Two columns: name and value; values of several lines stay as they are."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        head, *rest = _shown(value).split("\n")
        print(f"{name:<{width}}  {head}".rstrip())
        for line in rest:
            print(f"{'':<{width}}  {line}")


def when(stamp: Timestamp) -> str:
    """A time in the local zone."""
    from easel_sdk.documents import to_datetime

    at = to_datetime(stamp)
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def _coloured(cell: str, coloured: bool) -> str:
    return f"{_COLOURS[cell]}{cell}\x1b[0m" if coloured and cell in _COLOURS else cell


def _shown(cell: object) -> str:
    if cell is None or cell == "":
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:g}" if isinstance(cell, float) else str(cell)
