"""What every command shares: options that find the platform, output, errors as exit codes.

Decides how a function becomes a command. It keeps start-up short: nothing of the SDK is imported before a command
runs. Exit codes: 0 done · 1 failed · 2 bad input · 3 not found · 4 no platform · 5 timed out · 130 interrupted.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from easel_sdk import Client

INTERRUPTED = 130
_PANEL = "Which platform"


class Format(StrEnum):
    """How answers are printed."""

    table = "table"
    json = "json"
    yaml = "yaml"
    name = "name"


@dataclass
class Session:
    """One run of the command line: which platform, and how to print."""

    home: str | None = None
    server: str | None = None
    access_key: str | None = None
    output: Format = Format.table

    def client(self) -> Client:
        """The platform that the options and the environment name."""
        from easel_sdk.client import Client

        return Client(self.server, self.access_key, self.home)

    @property
    def is_table(self) -> bool:
        """Whether people read the output."""
        return self.output is Format.table


HomeOption = Annotated[
    str | None,
    typer.Option("--home", metavar="DIR", help="Home of the platform (EASEL_HOME; ~/.easel).",
                 rich_help_panel=_PANEL, show_default=False),
]  # fmt: skip
ServerOption = Annotated[
    str | None,
    typer.Option("--server", metavar="HOST:PORT", help="Control address of a platform elsewhere (EASEL_SERVER).",
                 rich_help_panel=_PANEL, show_default=False),
]  # fmt: skip
KeyOption = Annotated[
    str | None,
    typer.Option("--access-key", metavar="KEY", help="Its access key (EASEL_ACCESS_KEY).",
                 rich_help_panel=_PANEL, show_default=False),
]  # fmt: skip
OutputOption = Annotated[
    Format, typer.Option("--output", "-o", metavar="table|json|yaml|name", help="How to print the answer.")
]


def command(
    app: typer.Typer, name: str, *, example: str, panel: str, output: bool = False, remote: bool = True,
    hidden: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # fmt: skip
    """Makes a command of a function whose first parameter is the Session.

    `example`: a line that works, shown by --help. `output`: takes -o. `remote`: takes --server and --access-key.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        shared: dict[str, Any] = {"home": HomeOption}
        if remote:
            shared |= {"server": ServerOption, "access_key": KeyOption}
        if output:
            shared = {"output": OutputOption, **shared}
        epilog = "\n\n".join(f"Example: {line}" for line in example.splitlines())
        app.command(name, epilog=epilog, rich_help_panel=panel, hidden=hidden)(_wrapped(function, shared))
        return function

    return register


def _wrapped(function: Callable[..., Any], shared: Mapping[str, Any]) -> Callable[..., None]:
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

    @functools.wraps(function)
    def run(ctx: typer.Context, **given: Any) -> None:
        before: dict[str, Any] = ctx.find_root().obj or {}
        chosen = {key: given.pop(key) for key in shared}
        home, server, access_key = (chosen.get(k) or before.get(k) for k in ("home", "server", "access_key"))
        session = Session(home, server, access_key, chosen.get("output") or Format.table)
        code = execute(function, session, given)
        if code:
            raise typer.Exit(code)

    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context), *own]
    defaults = {"output": Format.table}
    for name, annotation in shared.items():
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=defaults.get(name))
        )
    keyword_last = sorted(parameters, key=lambda p: p.kind is inspect.Parameter.KEYWORD_ONLY)
    del run.__wrapped__  # typer would look at the function's own signature
    run.__signature__ = inspect.Signature(keyword_last)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in keyword_last}
    return run


def execute(function: Callable[..., Any], session: Session, given: Mapping[str, Any]) -> int:
    """Runs a command; returns its exit code, having said what went wrong."""
    from easel_cli.failure import exit_code, show
    from easel_contracts.errors import EaselError

    try:
        result = function(session, **given)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except EaselError as error:
        show(error, as_json=session.output is Format.json)
        return exit_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the reader (`| head`) has left: nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0
