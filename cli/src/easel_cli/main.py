"""The command `easel`: puts the commands together. It decides nothing and imports no SDK."""

from __future__ import annotations

import os
import sys

import typer

from easel_cli import (
    calling,
    canary,
    comparing,
    events,
    group,
    images,
    init,
    mirror,
    observing,
    opening,
    platform,
    releasing,
    replica,
    scaling,
    service,
    token,
)
from easel_cli.command import HomeOption, KeyOption, ServerOption
from easel_cli.options import PANEL as SERVICES

HELP = """Easel turns trained models into services on your own machines.

`easel up` starts a platform, `easel create service.json --wait` deploys a model, `easel predict NAME` calls it.
"""
EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 bad input, 3 not found, 4 no platform answers, 5 timed out, 130 interrupted.\n\n"
    "Example: easel up --detach && easel create service.json --wait"
)

app = typer.Typer(
    name="easel", help=HELP, epilog=EPILOG, no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        print(platform.installed_version())
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    home: HomeOption = None,
    server: ServerOption = None,
    access_key: KeyOption = None,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Keeps what stands before the command's name; the same options behind it win."""
    ctx.obj = {"home": home, "server": server, "access_key": access_key}


for module in (service, releasing, group, scaling, replica, calling, opening, init, events, observing, platform):
    app.add_typer(module.app)
app.add_typer(group.group_app, name="group", help="Services under one endpoint and token.",
              rich_help_panel=SERVICES)  # fmt: skip
app.add_typer(events.webhook_app, name="webhook", help="Have events posted to an address.",
              rich_help_panel=events.PANEL)  # fmt: skip
app.add_typer(platform.gateway_app, name="gateway", help="The Envoys that calls come through.",
              rich_help_panel=platform.PANEL)  # fmt: skip
app.add_typer(observing.node_app, name="node", help="Where replicas run.", rich_help_panel=observing.PANEL)
app.add_typer(images.image_app, name="image", help="What services can be deployed from.",
              rich_help_panel=images.PANEL)  # fmt: skip
app.add_typer(token.token_app, name="token", help="What opens a service to its callers.",
              rich_help_panel=SERVICES)  # fmt: skip
app.add_typer(canary.canary_app, name="canary", help="A new revision step by step, judged on the way.",
              rich_help_panel=SERVICES)  # fmt: skip
mirror.mirror_app.add_typer(comparing.app)
app.add_typer(mirror.mirror_app, name="mirror", help="Copies of a service's requests for other services.",
              rich_help_panel=SERVICES)  # fmt: skip


def main() -> None:
    """Entry point."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app()


if __name__ == "__main__":
    main()
