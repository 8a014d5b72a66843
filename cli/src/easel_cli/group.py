"""`release` and `group ls|desc|mode|limit`: services under one endpoint, and how requests are shared between them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from easel_cli.command import Session, command
from easel_cli.options import PANEL, Name

if TYPE_CHECKING:
    from easel_sdk.types import Explanation, Group, GroupMember

app = typer.Typer()
group_app = typer.Typer(no_args_is_help=True)

GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.", show_default=False)]
_MOST = 1_000_000


class Mode(StrEnum):
    """How a group's requests are shared."""

    auto = "auto"
    customized = "customized"


@command(app, "release", panel=PANEL, output=True,
         example="easel release ocr_next\neasel release ocr_next --weight 40\n"
                 "easel release ocr_next --standalone")  # fmt: skip
async def release(
    cli: Session,
    name: Name,
    weight: Annotated[
        int | None,
        typer.Option("--weight", "-w", metavar="N", min=-1, max=1000, show_default=False,
                     help="Its weight, 0 to 1000, beside the other members'; -1: by its replicas."),
    ] = None,
    standalone: Annotated[
        bool, typer.Option("--standalone/--grouping", help="No part in the group's traffic / a part (the default).")
    ] = False,
) -> None:  # fmt: skip
    """Has a service take part in its group's traffic, or no more; a weight makes the group `customized`.

    New members of a group get none of its requests before they are released. Their own endpoints always work.
    """
    from easel_cli.output import note

    async with cli.client() as client:
        found = await client.groups.release(name, weight=weight, state="standalone" if standalone else "grouping")
    member = next(m for m in found.members if m.service == name)
    how = f"with weight [{member.weight}]" if member.traffic_state == "grouping" else "as [standalone]"
    note(f"Releasing service [{name}] in group [{found.name}] {how}, service status: [{member.status}]")
    _show(cli, found)


@command(group_app, "ls", panel=PANEL, output=True, example="easel group ls\neasel group ls -o json")
async def list_groups(cli: Session) -> None:
    """Lists the groups."""
    from easel_cli.output import show, table, when
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        groups = await client.groups.list()
    if show(cli, [to_dict(g) for g in groups], [g.name for g in groups]):
        return
    rows = [
        (g.name, g.traffic_mode, _taking(g), _limit(g.rate_limit, "/s"), _limit(g.concurrency_limit, ""),
         when(g.create_time), f"/api/predict/{g.name}")
        for g in groups
    ]  # fmt: skip
    headers = ("GROUP", "MODE", "MEMBERS", "RATE", "CONCURRENCY", "CREATETIME", "PATH")
    table(headers, rows, empty="no groups: metadata.group of a service.json names the group a service belongs to")


@command(
    group_app, "desc", panel=PANEL, output=True, example="easel group desc letters\neasel group desc letters -o json"
)
async def describe(cli: Session, group: GroupName) -> None:
    """Shows a group, its members, which part of the requests each of them gets, and why."""
    from easel_cli.output import pairs, show, when
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        found = await client.groups.get(group)
        why = await client.groups.explain(group) if cli.is_table else None
    if show(cli, to_dict(found), [group]) or why is None:
        return
    pairs([
        ("Group", found.name),
        ("Uid", found.uid),
        ("TrafficMode", found.traffic_mode),
        ("Endpoint", found.endpoint),
        ("AccessToken", found.token),
        ("RateLimit", _limit(found.rate_limit, " requests per second")),
        ("ConcurrencyLimit", _limit(found.concurrency_limit, " requests at a time")),
        ("CreateTime", when(found.create_time)),
        ("UpdateTime", when(found.update_time)),
        ("Generation", found.generation),
        ("Reasons", _reasons(why)),
    ])  # fmt: skip
    print()
    _members(found)


@command(group_app, "mode", panel=PANEL, output=True, example="easel group mode letters customized")
async def mode(
    cli: Session,
    group: GroupName,
    mode: Annotated[Mode, typer.Argument(metavar="auto|customized", show_default=False,
                                         help="auto: by replicas; customized: by weights.")],
) -> None:  # fmt: skip
    """Says how a group's requests are shared: by the members' replicas in traffic, or by their weights."""
    from easel_cli.output import note

    async with cli.client() as client:
        found = await client.groups.update(group, mode=mode.value)
    note(f"[OK] Group {group} shares its requests {'by replicas' if mode is Mode.auto else 'by weights'}")
    _show(cli, found)


@command(group_app, "limit", panel=PANEL, output=True,
         example="easel group limit letters --rate 100 --concurrency 20\n"
                 "easel group limit letters --rate 0")  # fmt: skip
async def limit(
    cli: Session,
    group: GroupName,
    rate: Annotated[
        int | None,
        typer.Option("--rate", metavar="N", min=0, max=_MOST, show_default=False,
                     help="Requests per second of the whole group; 0: no limit."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", metavar="N", min=0, max=_MOST, show_default=False,
                     help="Requests at a time of the whole group; 0: no limit."),
    ] = None,
) -> None:  # fmt: skip
    """Limits what goes to a group by its endpoint; what is above is answered 429."""
    from easel_cli.output import note
    from easel_contracts.errors import InvalidInput

    if rate is None and concurrency is None:
        raise InvalidInput("nothing to change", hint="give --rate N or --concurrency N; 0 takes the limit away")
    async with cli.client() as client:
        found = await client.groups.update(group, rate_limit=rate, concurrency_limit=concurrency)
    note(f"[OK] Group {group} lets through: {_let_through(found)}")
    _show(cli, found)


def _show(cli: Session, group: Group) -> None:
    from easel_cli.output import show
    from easel_sdk.documents import to_dict

    if not show(cli, to_dict(group), [group.name]):
        _members(group)


def _members(group: Group) -> None:
    from easel_cli.output import table

    headers = ("MEMBER", "TRAFFIC", "WEIGHT", "SHARE", "RUNNING", "STATUS", "PATH")
    table(headers, [_row(member, group) for member in group.members])


def _row(member: GroupMember, group: Group) -> tuple[object, ...]:
    return (
        member.service, member.traffic_state, "by replicas" if member.weight < 0 else member.weight,
        f"{member.share_percent:.4g} %", member.running_instance, member.status,
        f"/api/predict/{group.name}.{member.service}",
    )  # fmt: skip


def _taking(group: Group) -> str:
    """Each member with its share."""
    return ", ".join(
        f"{m.service} {m.share_percent:.4g} %" if m.traffic_state == "grouping" else f"{m.service} standalone"
        for m in group.members
    )


def _limit(value: int, unit: str) -> str:
    return f"{value}{unit}" if value else "no limit"


def _let_through(group: Group) -> str:
    limits = [
        f"{value} {unit} at most"
        for value, unit in ((group.rate_limit, "requests per second"), (group.concurrency_limit, "at a time"))
        if value
    ]
    return ", ".join(limits) or "all that comes"


def _reasons(why: Explanation) -> str:
    return "\n".join(line.message + (f" → {line.hint}" if line.hint else "") for line in why.lines)
