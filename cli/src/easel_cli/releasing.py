"""`version revisions rollout restart`: which revision a service runs, and how it changes to another."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from easel_cli.command import Session, command
from easel_cli.options import PANEL, AllowInterruption, Name, Timeout, Wait
from easel_cli.settling import settle

if TYPE_CHECKING:
    from easel_sdk import Client
    from easel_sdk.services import RolloutAction
    from easel_sdk.types import Replica, Revision, Service

app = typer.Typer()


class Action(StrEnum):
    """What can be done about a rollout."""

    status = "status"
    pause = "pause"
    resume = "resume"
    revert = "revert"


_CHANGES: dict[Action, RolloutAction] = {
    Action.pause: "pause", Action.resume: "resume", Action.revert: "revert",
}  # fmt: skip


@command(app, "version", panel=PANEL, output=True, example="easel version ocr 3 --wait\neasel version")
async def version(
    cli: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of the service.", show_default=False)
    ] = None,
    revision: Annotated[
        int | None, typer.Argument(metavar="[N]", min=1, help="The revision to run.", show_default=False)
    ] = None,
    allow_interruption: AllowInterruption = False,
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Switches a service to another revision: at once where its replicas are still up, else by a rollout.

    Sources that may have changed since that revision was made are named. Without NAME and N it shows the version of
    this command, and of the platform where one answers.
    """
    from easel_cli.output import note
    from easel_cli.platform import show_versions
    from easel_contracts.errors import InvalidInput

    if name is None:
        await show_versions(cli)
        return
    if revision is None:
        raise InvalidInput(f"which revision shall {name} run?",
                           hint=f"`easel revisions {name}` lists them, `easel version {name} N` switches")  # fmt: skip
    async with cli.client() as client:
        service = await client.services.switch_revision(name, revision, allow_interruption=allow_interruption)
        note(f"[OK] Service {name} is to run revision {revision}")
        await settle(cli, client, service, wait=wait, timeout_s=timeout)


@command(app, "revisions", panel=PANEL, output=True, example="easel revisions ocr\neasel revisions ocr --diff 3 4")
async def revisions(
    cli: Session,
    name: Name,
    diff: Annotated[
        tuple[int, int] | None,
        typer.Option("--diff", metavar="A B", help="What differs between two of them.", show_default=False),
    ] = None,
) -> None:
    """Lists a service's revisions with the digest of each of their sources, or compares two of them."""
    from easel_cli.output import show, table, when
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        if diff is not None:
            await _compare(cli, client, name, *diff)
            return
        found = await client.services.revisions(name)
    if show(cli, [to_dict(r) for r in found], [str(r.number) for r in found]):
        return
    rows = [(r.number, r.state, "yes" if r.current else "", when(r.create_time), _sources(r)) for r in found]
    table(("VERSION", "STATE", "CURRENT", "CREATETIME", "SOURCES"), rows)


@command(app, "rollout", panel=PANEL, output=True,
         example="easel rollout ocr\neasel rollout ocr --follow\neasel rollout ocr pause\neasel rollout ocr revert "
                 "--wait")  # fmt: skip
async def rollout(
    cli: Session,
    name: Name,
    action: Annotated[Action, typer.Argument(metavar="status|pause|resume|revert", help="What to do.")] = Action.status,
    follow: Annotated[
        bool, typer.Option("--follow", "--wait", "-f", help="Until it has ended; exit code 1 when it was reverted.")
    ] = False,
    timeout: Timeout = None,
) -> None:
    """Shows the rollout of a service that is on, pauses it, resumes it, or reverts it."""
    from easel_cli.output import note
    from easel_cli.progress import follow as follow_progress

    async with cli.client() as client:
        if action is Action.status:
            service = await client.services.get(name)
        else:
            service = await client.services.change_rollout(name, _CHANGES[action])
            note(f"[OK] the rollout of {name}: {action}")
        if follow and (service.HasField("rollout") or action is not Action.status):
            await follow_progress(client, service, timeout_s=timeout, over_pauses=True)
            service = await client.services.get(name)
        _show_rollout(cli, service, await client.replicas.list(name))


@command(app, "restart", panel=PANEL, output=True, example="easel restart ocr --wait\neasel restart ocr --soft --wait")
async def restart(
    cli: Session,
    name: Name,
    soft: Annotated[
        bool, typer.Option("--soft", help="Start each replica's process anew in its place, one by one.")
    ] = False,
    allow_interruption: AllowInterruption = False,
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Replaces every replica by a rollout, new ones first."""
    from easel_cli.replica import living_replicas, restart_replicas
    from easel_contracts.errors import InvalidInput

    if soft and allow_interruption:
        raise InvalidInput("--soft needs no room, so there is nothing to interrupt", hint="leave one of them out")
    async with cli.client() as client:
        if soft:
            living = await living_replicas(client, name)
            await restart_replicas(cli, client, name, living, soft=True, now=False, wait=wait, timeout_s=timeout)
            return
        service = await client.services.restart(name, allow_interruption=allow_interruption)
        await settle(cli, client, service, wait=wait, timeout_s=timeout)


async def _compare(cli: Session, client: Client, name: str, base: int, other: int) -> None:
    from easel_cli.output import show, table
    from easel_sdk.documents import to_dict

    found = await client.services.diff_revisions(name, base, other)
    if not show(cli, [to_dict(d) for d in found], [d.path for d in found]):
        table(("PATH", "BEFORE", "AFTER"), [(d.path, d.before, d.after) for d in found],
              empty=f"revisions {base} and {other} of {name} do not differ")  # fmt: skip


def _show_rollout(cli: Session, service: Service, replicas: list[Replica]) -> None:
    """The rollout, or that there is none."""
    from easel_cli.output import note, pairs, show, when
    from easel_cli.rollouts import change, counted, message, shown, sides
    from easel_sdk.documents import to_dict

    name, found = service.service_name, service.rollout if service.HasField("rollout") else None
    old, new = sides(found, replicas) if found else ([], [])
    document = {
        "service_name": name, "status": service.status, "current_version": service.current_version,
        "rollout": to_dict(found) | {"old": counted(old), "new": counted(new)} if found else None,
    }  # fmt: skip
    if show(cli, document, [name]):
        return
    if found is None:
        note(f"no rollout is on: {name} is {service.status} at revision {service.current_version}"
             + (f"; {service.message}" if service.status != "Running" else ""))  # fmt: skip
        return
    pairs([
        ("Service", f"{name}, {service.status}"),
        ("Rollout", change(found)),
        ("State", found.state),
        ("Share", f"up to {found.share_percent} % of {service.wanted_instance} replicas may be new"),
        ("Old", shown(old)),
        ("New", shown(new)),
        ("Failed", found.failed),
        ("Reason", found.reason),
        ("Message", message(found)),
        ("Began", when(found.began_time)),
        ("Reverts", when(found.revert_time) if found.HasField("revert_time") else "not by itself"),
    ])  # fmt: skip


def _sources(revision: Revision) -> str:
    return ", ".join(f"{source.source} {source.digest[:19]}" for source in revision.sources)
