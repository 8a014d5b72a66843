"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

PANEL = "Services"
"""Heading of the commands about services in `easel --help`."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the service.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Return when it is done, showing progress.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="S", help="With --wait: seconds at most (900).", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say whether it would be accepted.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", "-f", help="Do not ask.")]
Spec = Annotated[str | None, typer.Option("--spec", "-s", metavar="FILE", help="JSON to merge in.")]
Define = Annotated[
    list[str] | None, typer.Option("-D", metavar="PATH=VALUE", help="One key; may be given often.")
]  # fmt: skip
AllowInterruption = Annotated[
    bool,
    typer.Option(
        "--allow-interruption", help="With no room for new replicas beside the old ones, let these make room first."
    ),
]
