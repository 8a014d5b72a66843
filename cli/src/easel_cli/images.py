"""`image ls`: what a service can be deployed from without pulling."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from easel_cli.command import Session, command

if TYPE_CHECKING:
    from easel_sdk.types import Image

PANEL = "Looking"
image_app = typer.Typer(no_args_is_help=True)

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@command(image_app, "ls", panel=PANEL, output=True, example="easel image ls\neasel image ls --node local --all -o json")
async def list_images(
    cli: Session,
    node: Annotated[str, typer.Option("--node", metavar="NODE", help="Of this node only.", show_default=False)] = "",
    all: Annotated[bool, typer.Option("--all", "-a", help="Also images without a tag.")] = False,
) -> None:
    """Lists the images that the nodes have: those made to build services on first. Nothing is pulled."""
    from easel_cli.output import show, table
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        found = await client.nodes.images(node=node, all=all)
    for silent in found.silent:
        print(f"incomplete: images of {silent.node} are not known: {silent.why}", file=sys.stderr)
    names = [name for image in found.images for name in image.tags or [image.id]]
    if show(cli, to_dict(found), names):
        return
    rows = [row for image in found.images for row in _rows(image)]
    table(("NAME", "TAG", "ID", "SIZE", "CREATED", "NODES", "RUNTIME"), rows, empty="no images")


def _rows(image: Image) -> list[tuple[object, ...]]:
    """One for each name that it has."""
    from easel_cli.output import when

    tags: dict[str, list[str]] = {}
    for reference in image.tags:
        name, tag = split(reference)
        tags.setdefault(name, []).append(tag)
    facts = (image.id.rpartition(":")[2][:12], size(image.size_bytes), when(image.create_time),
             ", ".join(image.nodes), image.runtime)  # fmt: skip
    return [(name, ", ".join(found), *facts) for name, found in tags.items()] or [("", "", *facts)]


def split(reference: str) -> tuple[str, str]:
    """Name and tag of a reference; a registry's port is no tag."""
    head, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag


def size(size_bytes: int) -> str:
    """In the unit that people read."""
    amount, unit = float(size_bytes), UNITS[0]
    for unit in UNITS:
        if amount < 1024 or unit == UNITS[-1]:
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if amount >= 10 or unit == UNITS[0] else f"{amount:.1f} {unit}"
