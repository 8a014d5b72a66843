"""Printing answers: tables for people, JSON, YAML and names for programs. Results go to stdout, the rest to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from easel_cli.command import Format, Session

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

_STYLES = {
    "Running": "green", "ready": "green", "running": "green", "live": "green", "ok": "green",
    "Failed": "red", "failed": "red", "lost": "red", "refused": "red", "fail": "red", "unready": "yellow",
}  # fmt: skip


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
    """Columns without borders, so that they can be cut and grepped."""
    cells = [[_shown(cell) for cell in row] for row in rows]
    if not cells and empty:
        note(empty)
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, header in enumerate(headers):
        grid.add_column(header, overflow="fold", no_wrap=index == 0)
    for row in cells:
        grid.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console().print(grid)


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Two columns: name and value; values of several lines stay as they are."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        head, *rest = _shown(value).split("\n")
        print(f"{name:<{width}}  {head}".rstrip())
        for line in rest:
            print(f"{'':<{width}}  {line}")


def console() -> Any:
    """A rich console on stdout; into a file or pipe as wide as its content."""
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=False)
    return out if out.is_terminal else Console(highlight=False, width=10_000)


def when(stamp: Timestamp) -> str:
    """A time in the local zone."""
    from easel_sdk.documents import to_datetime

    at = to_datetime(stamp)
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def _shown(cell: object) -> str:
    if cell is None or cell == "":
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:g}" if isinstance(cell, float) else str(cell)
