"""`predict`: a call to a service, with its token filled in."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from easel_cli.command import Session, command
from easel_cli.options import PANEL, Name

if TYPE_CHECKING:
    from easel_sdk import Prediction

app = typer.Typer()


@command(app, "predict", panel=PANEL,
         example="easel predict ocr --body @page.png --header Content-Type:image/png -v\n"
                 "easel predict iris --body '{\"x\": [5.1, 3.5, 1.4, 0.2]}'")  # fmt: skip
async def predict(
    cli: Session,
    name: Name,
    path: Annotated[str, typer.Option("--path", metavar="P", help="Below /api/predict/NAME.", show_default=False)] = "",
    body: Annotated[
        str | None, typer.Option("--body", "-d", metavar="@FILE|TEXT", help="Body; @- reads stdin.", show_default=False)
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="K:V", help="May be given often.", show_default=False)
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", "-X", help="POST with a body, else GET.", show_default=False)
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="S", help="Seconds without an answer.", show_default=False)
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also status, headers, and how long it was held for a replica.")
    ] = False,
) -> int:
    """Calls a service and prints the answer as it comes. The token is filled in.

    NAME may also be a group, or GROUP.SERVICE: a member by way of its group.
    """
    from easel_sdk.errors import PredictFailed

    headers = _headers(header or [])
    content = await asyncio.to_thread(_body, body)
    async with cli.client() as client:
        try:
            stream = client.predict_stream(
                name, content, path=path, method=method, headers=headers, timeout_s=timeout,
                on_start=_told_from(time.monotonic()) if verbose else None,
            )  # fmt: skip
            async for chunk in stream:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
        except PredictFailed as error:
            if verbose:
                _tell_headers(error.status, error.headers)
            if error.body:
                sys.stdout.buffer.write(error.body)
                sys.stdout.buffer.flush()
            if error.body and sys.stdout.isatty():
                print()
            raise
    if sys.stdout.isatty():
        print()
    return 0


def _told_from(started: float) -> Callable[[Prediction], None]:
    """Says on stderr what came before the answer's body: status, time, headers, and how it was held."""

    def tell(answer: Prediction) -> None:
        from easel_cli.output import note
        from easel_sdk.predicting import held_words

        _tell_headers(answer.status, answer.headers)
        took = f"the answer began after {time.monotonic() - started:.2f} s"
        held = answer.held
        note(took if held is None else f"{took}; the request waited for a replica, {held_words(held)}")

    return tell


def _tell_headers(status: int, headers: Mapping[str, str]) -> None:
    from easel_cli.output import note

    if status:
        note("\n".join([f"HTTP {status}", *(f"  {name}: {value}" for name, value in headers.items())]))


def _headers(given: list[str]) -> dict[str, str]:
    from easel_contracts.errors import FieldError, InvalidInput

    headers, wrong = {}, []
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            wrong.append(FieldError(path=f"--header {text}", code="SYNTAX", message="is not of the form NAME:VALUE"))
        headers[name.strip()] = value.strip()
    if wrong:
        raise InvalidInput("the headers cannot be read", tuple(wrong))
    return headers


def _body(given: str | None) -> bytes | str | None:
    """`@-` is stdin, `@FILE` a file's bytes, anything else the text itself."""
    from easel_contracts.errors import InvalidInput

    if given is None or not given.startswith("@"):
        return given
    if given == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(given[1:]).expanduser().read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read the body from {given[1:]}: {error.strerror}", code="NO_FILE",
                           hint="--body @FILE sends a file, --body TEXT the text") from error  # fmt: skip
