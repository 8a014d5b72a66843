"""`open`: a web application in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from easel_cli.command import Session, command
from easel_cli.options import PANEL

app = typer.Typer()


@command(app, "open", panel=PANEL, example="easel open ocr_app\neasel open ocr_app --ttl 8h --print")
async def open_service(
    cli: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the service.", show_default=False)],
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="TIME", help="How long the link is good, e.g. 90s, 5m, 8h; at most 30d.")
    ] = "1h",
    path: Annotated[str, typer.Option("--path", metavar="P", help="Page of the application.")] = "/",
    print_only: Annotated[bool, typer.Option("--print", help="Only print the link.")] = False,
) -> None:
    """Opens a web application in the browser, by a link that is good for a while. Whoever has the link gets in."""
    import webbrowser

    from easel_cli.durations import seconds_of
    from easel_cli.output import note

    seconds = seconds_of(ttl, "--ttl")
    async with cli.client() as client:
        link = await client.web_link(name, ttl_s=seconds, path=path)
    if print_only or not webbrowser.open(link):
        print(link)
    else:
        note(f"[OK] {name} opens in the browser; the link is good for {ttl}")
