"""`token ls create rotate rm`: what opens a service or a group to its callers."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from easel_cli.command import Session, command
from easel_cli.options import PANEL, Yes

if TYPE_CHECKING:
    from easel_sdk.types import AccessToken

token_app = typer.Typer(no_args_is_help=True)

Owner = Annotated[str, typer.Argument(metavar="NAME", help="Name of the service.", show_default=False)]
TokenName = Annotated[str, typer.Argument(metavar="TOKEN", help="Name of the token.", show_default=False)]
OfGroup = Annotated[bool, typer.Option("--group", "-g", help="NAME is a group's.")]
Value = Annotated[
    str | None,
    typer.Option("--value", metavar="TEXT|-", help="8 to 256 printable characters; -: from stdin. Left out: one is "
                 "made.", show_default=False),
]  # fmt: skip


@command(token_app, "ls", panel=PANEL, output=True, example="easel token ls ocr\neasel token ls --group vision -o json")
async def list_tokens(cli: Session, name: Owner, group: OfGroup = False) -> None:
    """Lists the tokens that open a service now, with their values."""
    from easel_cli.output import show, table
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        found = await client.tokens.list(name, group=group)
    if not show(cli, [to_dict(t) for t in found], [t.name for t in found]):
        table(("NAME", "TOKEN", "EXPIRES", "RATELIMIT", "CREATED", "NOTE"), [_row(t) for t in found])


@command(token_app, "create", panel=PANEL, output=True,
         example="easel token create ocr mobile --expires 30d --rate-limit 50\n"
                 "easel token create ocr batch --value - < token.txt")  # fmt: skip
async def create(
    cli: Session,
    name: Owner,
    token: TokenName,
    value: Value = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="From now, e.g. 90s, 5m, 1h, 30d; 0: never.")
    ] = "0",
    rate_limit: Annotated[
        int, typer.Option("--rate-limit", metavar="N", min=0, help="Requests per second with it; 0: no limit.")
    ] = 0,
    group: OfGroup = False,
) -> None:
    """Makes one more token, so that callers can be told apart, limited and shut out one by one."""
    from easel_cli.durations import seconds_of
    from easel_cli.output import note

    seconds = math.ceil(seconds_of(expires, "--expires"))
    async with cli.client() as client:
        made = await client.tokens.create(
            name, token, value=_value(value), expires_in_s=seconds, rate_limit=rate_limit, group=group
        )
    note(f"[OK] Token {token} of {name} is created")
    _print(cli, made)


@command(token_app, "rotate", panel=PANEL, output=True,
         example="easel token rotate ocr\neasel token rotate ocr mobile --overlap 24h")  # fmt: skip
async def rotate(
    cli: Session,
    name: Owner,
    token: Annotated[str, typer.Argument(metavar="[TOKEN]", help="Name of the token.")] = "default",
    value: Value = None,
    overlap: Annotated[
        str,
        typer.Option("--overlap", metavar="TIME", help="How long the value before stays good; 0: it goes at once."),
    ] = "1h",
    group: OfGroup = False,
) -> None:
    """Gives a token a new value; the one before stays good for a while, so that callers can change over."""
    from easel_cli.durations import seconds_of
    from easel_cli.output import note

    seconds = math.ceil(seconds_of(overlap, "--overlap"))
    async with cli.client() as client:
        made = await client.tokens.rotate(name, token, value=_value(value), overlap_s=seconds, group=group)
    rest = f"good for {seconds} s more, if it was for so long" if seconds else "refused from now on"
    note(f"[OK] Token {token} of {name} has a new value; the one before is {rest}")
    _print(cli, made)


@command(token_app, "rm", panel=PANEL, output=True, example="easel token rm ocr mobile -y")
async def remove(cli: Session, name: Owner, token: TokenName, group: OfGroup = False, yes: Yes = False) -> int:
    """Ends a token and its older values: callers with it are refused. `default` can only be rotated."""
    from easel_cli.output import note, show
    from easel_sdk.documents import to_dict

    if not yes and not typer.confirm(f"Are you sure to delete the token [{token}] of [{name}]?", err=True):
        return 1
    async with cli.client() as client:
        gone = await client.tokens.delete(name, token, group=group)
    note(f"[OK] Token {token} of {name} is deleted")
    show(cli, to_dict(gone), [gone.name])
    return 0


def _value(given: str | None) -> str:
    """The value; - is read from stdin, where other users of the machine cannot see it."""
    return sys.stdin.read().strip() if given == "-" else given or ""


def _print(cli: Session, token: AccessToken) -> None:
    from easel_cli.output import pairs, show, when
    from easel_sdk.documents import to_dict

    if not show(cli, to_dict(token), [token.name]):
        expires = when(token.expire_time) if token.HasField("expire_time") else "never"
        limit = f"{token.rate_limit} requests a second" if token.rate_limit else "none"
        pairs([("Name", token.name), ("Token", token.value), ("Expires", expires), ("RateLimit", limit)])


def _row(token: AccessToken) -> tuple[object, ...]:
    from easel_cli.output import when

    expires = when(token.expire_time) if token.HasField("expire_time") else "never"
    note = "older value, until it expires" if token.rotated else ""
    return (token.name, token.value, expires, token.rate_limit or "-", when(token.create_time), note)
