"""`scale autoscale`: how many replicas a service has, and who decides it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from easel_cli.command import Session, command
from easel_cli.options import PANEL, Define, Name, Timeout, Wait
from easel_cli.settling import settle, source

if TYPE_CHECKING:
    from easel_sdk import Client
    from easel_sdk.types import Decision, ScaleTarget

app = typer.Typer()
REMOVE = "rm"
_SHOWN_DECISIONS = 5


@command(app, "scale", panel=PANEL, output=True, example="easel scale ocr 3 --wait")
async def scale(
    cli: Session,
    name: Name,
    instance: Annotated[int, typer.Argument(metavar="N", min=0, help="Replicas.")],
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Sets how many replicas run (an autoscaler decides for itself)."""
    from easel_cli.output import note

    async with cli.client() as client:
        service = await client.services.scale(name, instance)
        note(f"[OK] Service {name} is to have {instance} instances")
        await settle(cli, client, service, wait=wait, timeout_s=timeout)


@command(app, "autoscale", panel=PANEL, output=True,
         example="easel autoscale ocr -Dmin=0 -Dmax=5 -Dstrategies.qps=10\neasel autoscale ocr -s scaler.json\n"
                 "easel autoscale ocr\neasel autoscale rm ocr")  # fmt: skip
async def autoscale(
    cli: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME|rm", help="Name of the service; rm: of the next.", show_default=False)
    ],
    removed: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="With rm: name of the service.", show_default=False)
    ] = None,
    define: Define = None,
    spec: Annotated[
        str | None, typer.Option("--spec", "-s", metavar="FILE", help='{"min": …, "max": …, "strategies": {…}}')
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Lets a service's replicas follow its load; without options it shows what was decided and why.

    What is given is laid over the section `autoscaler` of the service. `rm` removes it: metadata.instance counts then.
    """
    from easel_cli.output import note
    from easel_contracts.errors import InvalidInput

    if name == REMOVE and (removed is None or define or spec is not None):
        raise InvalidInput("rm takes the name of a service and nothing else", hint="easel autoscale rm NAME")
    if name != REMOVE and removed is not None:
        raise InvalidInput(f"what shall be done with {removed}?", hint=f"easel autoscale {name} -Dmin=1 -Dmax=5")
    async with cli.client() as client:
        if name == REMOVE and removed is not None:
            service = await client.services.remove_autoscaler(removed)
            note(f"[OK] Service {removed} has no autoscaler: metadata.instance says how many replicas it has")
        elif define or spec is not None:
            service = await client.services.set_autoscaler(name, _section(spec, define or []))
            note(f"[OK] the autoscaler of {name} is set (generation {service.generation})")
        else:
            await _show(cli, client, name)
            return
        await settle(cli, client, service, wait=wait, timeout_s=timeout)


def _section(spec: str | None, define: list[str]) -> dict[str, Any]:
    """The section `autoscaler`: the file with each -D made in it."""
    from easel_cli import assignments
    from easel_sdk.spec_file import read_spec

    document = read_spec(source(spec)).document if spec is not None else {}
    return assignments.changes(assignments.parse(define, whole_below="strategies"), document, {})


async def _show(cli: Session, client: Client, name: str) -> None:
    """What was decided last, from what, and the decisions before."""
    from easel_cli.output import pairs, show, table, when
    from easel_sdk.documents import to_dict

    found = await client.scaling.get(name)
    decisions = await client.scaling.history(name, limit=_SHOWN_DECISIONS)
    if show(cli, to_dict(found) | {"decisions": [to_dict(d) for d in decisions]}, [name]):
        return
    limits = f"{found.min} to {found.max}" if found.enabled else "no autoscaler: metadata.instance counts"
    pairs([
        ("Service", name),
        ("Replicas", f"{found.wanted} wanted"),
        ("Limits", limits),
        ("Targets", "\n".join(_target(target) for target in found.targets)),
    ])  # fmt: skip
    print()
    rows = [(when(d.at), _step(d), d.reason, d.message) for d in decisions]
    table(("DECIDED", "REPLICAS", "REASON", "MESSAGE"), rows, empty="nothing was decided yet")


def _step(decision: Decision) -> str:
    if decision.before == decision.wanted:
        return str(decision.wanted)
    return f"{decision.before} → {decision.wanted}"


def _target(target: ScaleTarget) -> str:
    now = f"{target.current:.1f}" if target.has_current else "not known"
    return f"{target.metric} {target.threshold:g} per replica, now {now}"
