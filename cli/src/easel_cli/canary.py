"""`canary start desc ls promote pause resume abort step`: a new revision, or another member of a group, by steps."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from easel_cli.command import Session, command
from easel_cli.defaulting import DescByDefault
from easel_cli.options import PANEL, AllowInterruption, Define, Spec

if TYPE_CHECKING:
    from easel_sdk import Client
    from easel_sdk.canaries import CanaryAction
    from easel_sdk.types import Canary

canary_app = typer.Typer(cls=DescByDefault, no_args_is_help=True)

Of = Annotated[str, typer.Argument(metavar="NAME", help="Name of the service or group.", show_default=False)]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Live, until it has ended; exit code 1 unless promoted.")]
_PLAN = "How it goes on"
_WHO = "Which requests go to the candidate, whatever the weight"


class OnBreach(StrEnum):
    """What happens when the candidate is worse."""

    rollback = "rollback"
    pause = "pause"


class Metric(StrEnum):
    """What it is judged by."""

    errors = "errors"
    latency = "latency"


@command(canary_app, "start", panel=PANEL, output=True,
         example="easel canary start ocr -s change.json --steps 1,5,25,50,100 --step-time 5m --wait\n"
                 "easel canary start ocr -Dcontainers[0].command='python next.py' --header x-canary=1\n"
                 "easel canary start ocr --revision 4 --blue-green")  # fmt: skip
async def start(
    cli: Session,
    name: Of,
    spec: Spec = None,
    define: Define = None,
    revision: Annotated[
        int | None, typer.Option("--revision", metavar="N", min=1, help="A revision there has been, instead of a "
                                 "change.", show_default=False),
    ] = None,
    candidate: Annotated[
        str | None, typer.Option("--candidate", metavar="MEMBER", help="Of a group: who is to take over.",
                                 show_default=False),
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", metavar="PERCENT,...", help="Rising to 100, in tenths at the finest "
                                 "(1,5,10,25,50,100).", show_default=False, rich_help_panel=_PLAN),
    ] = None,
    step_time: Annotated[
        str | None, typer.Option("--step-time", metavar="TIME", help="Each step lasts so long at least (60s).",
                                 show_default=False, rich_help_panel=_PLAN),
    ] = None,
    metric: Annotated[
        list[Metric] | None, typer.Option("--metric", help="What it is judged by; may be given twice (both).",
                                          show_default=False, rich_help_panel=_PLAN),
    ] = None,
    min_requests: Annotated[
        int, typer.Option("--min-requests", metavar="N", min=0, help="Of the candidate in a step before the next; 0: "
                          "as the method needs.", rich_help_panel=_PLAN),
    ] = 0,
    time_limit: Annotated[
        str | None, typer.Option("--time-limit", metavar="TIME", help="Then it stays where it is and says so (2h).",
                                 show_default=False, rich_help_panel=_PLAN),
    ] = None,
    error_limit: Annotated[
        float, typer.Option("--error-limit", metavar="PERCENT", help="Promoted only if errors are shown to be below; "
                            "0: 0.5.", rich_help_panel=_PLAN),
    ] = 0.0,
    latency_limit: Annotated[
        float, typer.Option("--latency-limit", metavar="RATIO", help="Promoted only if the p95 by stable's is shown to "
                            "be below; 0: 1.2.", rich_help_panel=_PLAN),
    ] = 0.0,
    on_breach: Annotated[
        OnBreach, typer.Option("--on-breach", help="When it is worse: back, or paused out of traffic.",
                               rich_help_panel=_PLAN),
    ] = OnBreach.rollback,
    keep_stable: Annotated[
        bool, typer.Option("--keep-stable", help="All replicas of the stable revision stay until the end.",
                           rich_help_panel=_PLAN),
    ] = False,
    blue_green: Annotated[
        bool, typer.Option("--blue-green", help="The candidate comes up whole beside stable, then gets all requests in "
                           "one step.", rich_help_panel=_PLAN),
    ] = False,
    mirror_gate: Annotated[
        bool, typer.Option("--mirror-gate", help="Promoted only if compared answers (`easel mirror`) do not differ.",
                           rich_help_panel=_PLAN),
    ] = False,
    manual: Annotated[
        bool, typer.Option("--manual", help="Steps are taken by hand: `easel canary step|promote`.",
                           rich_help_panel=_PLAN),
    ] = False,
    header: Annotated[
        str | None, typer.Option("--header", metavar="NAME=VALUE", help="Those with this header.", show_default=False,
                                 rich_help_panel=_WHO),
    ] = None,
    cookie: Annotated[
        str | None, typer.Option("--cookie", metavar="NAME=VALUE", help="Those with this cookie.", show_default=False,
                                 rich_help_panel=_WHO),
    ] = None,
    query: Annotated[
        str | None, typer.Option("--query", metavar="NAME=VALUE", help="Those with this query parameter.",
                                 show_default=False, rich_help_panel=_WHO),
    ] = None,
    sticky: Annotated[
        str | None, typer.Option("--sticky", metavar="header|cookie|query:NAME", help="Requests that are equal in it "
                                 "go the same way.", show_default=False, rich_help_panel=_WHO),
    ] = None,
    allow_interruption: AllowInterruption = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until it has ended, showing it live; exit code 1 unless promoted.")
    ] = False,
) -> int:  # fmt: skip
    """Brings in a change (-s, -D), another --revision, the rollout that is on, or a group's --candidate step by step.

    By itself it goes on while the candidate is not worse, back when it is, and waits where there are too few requests
    to tell. See docs/canary.md.
    """
    from easel_cli.canary_plan import PlanOptions, plan_of
    from easel_cli.output import note
    from easel_cli.settling import changes

    plan = plan_of(PlanOptions(
        steps=steps, step_time=step_time, metrics=tuple(m.value for m in metric or ()), min_requests=min_requests,
        time_limit=time_limit, error_limit=error_limit, latency_limit=latency_limit, on_breach=on_breach.value,
        keep_stable=keep_stable, blue_green=blue_green, mirror_gate=mirror_gate, manual=manual, header=header,
        cookie=cookie, query=query, sticky=sticky,
    ))  # fmt: skip
    async with cli.client() as client:
        document = await changes(client, name, spec, define or []) if spec is not None or define else None
        begun = await client.canaries.start(
            name, document, plan=plan, revision=revision or 0, candidate=candidate or "",
            allow_interruption=allow_interruption,
        )  # fmt: skip
        for warning in begun.warnings:
            note(f"warning: {warning}")
        note(f"[OK] Canary of {name} is on: {_sides(begun)}")
        if wait:
            return await _follow(cli, client, begun.id)
    if not _print(cli, begun):
        note(f"`easel canary {name} -f` shows how it goes")
    return 0


@command(canary_app, "desc", panel=PANEL, output=True, example="easel canary desc ocr\neasel canary ocr -f")
async def describe(cli: Session, name: Of, follow: Follow = False) -> int:
    """Shows the canary of a service or group that is on, or its last one: weights, counts of both sides, evidence.

    The word `desc` may be left out.
    """
    async with cli.client() as client:
        if follow:
            return await _follow(cli, client, name)
        _print(cli, await client.canaries.get(name), whole=True)
    return 0


@command(canary_app, "ls", panel=PANEL, output=True, example="easel canary ls\neasel canary ls ocr")
async def list_canaries(
    cli: Session, name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only of this service or group.")] = ""
) -> None:
    """Lists canaries: those that are on, then past ones, newest first."""
    from easel_cli.canary_words import outcome, percent
    from easel_cli.output import show, table, when
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        found = await client.canaries.list(name)
    if show(cli, [to_dict(c) for c in found], [c.id for c in found]):
        return
    rows = [
        (c.name, _sides(c), c.state, percent(c.weight_permille), f"{c.candidate_counts.requests:,}",
         when(c.start_time), when(c.end_time) if c.HasField("end_time") else "", outcome(c))
        for c in found
    ]  # fmt: skip
    headers = ("NAME", "CANDIDATE", "STATE", "WEIGHT", "REQUESTS", "STARTTIME", "ENDTIME", "MESSAGE")
    table(headers, rows, empty="no canaries: `easel canary start NAME -s FILE` starts one")


def _by_hand(action: CanaryAction, example: str, what: str, said: str) -> None:
    """Makes a command of what people do to a canary."""

    async def act(cli: Session, name: Of) -> None:
        from easel_cli.output import note

        async with cli.client() as client:
            found = await client.canaries.change(name, action)
        note(f"[OK] Canary of {name}: {said}")
        _print(cli, found)

    act.__doc__ = what
    command(canary_app, action, panel=PANEL, output=True, example=example)(act)


_by_hand("promote", "easel canary promote ocr",
         "Gives all requests to the candidate as soon as all its replicas serve; nothing is judged on the way.",
         "the candidate takes over")  # fmt: skip
_by_hand("pause", "easel canary pause ocr",
         "Keeps the weight where it is. It goes back all the same where the candidate is worse.",
         "it stays at its weight")  # fmt: skip
_by_hand("resume", "easel canary resume ocr",
         "Goes on with a paused canary; one that was paused because it was worse begins anew.",
         "it goes on")  # fmt: skip
_by_hand("step", "easel canary step ocr",
         "Takes the next weight as soon as its replicas serve, whatever the time and the number of requests.",
         "the next weight is taken")  # fmt: skip
_by_hand("abort", "easel canary abort ocr",
         "Takes the candidate out of traffic and goes back to what was stable.",
         "it goes back to what was stable")  # fmt: skip


async def _follow(cli: Session, client: Client, name: str) -> int:
    """Shows it until it has ended."""
    from easel_cli.canary_words import Follower
    from easel_cli.output import note

    with Follower() as follower:
        last = None
        async for last in client.canaries.watch(name):
            follower.show(last)
    assert last is not None, "a watch gives the canary at least once"
    _print(cli, last, whole=True)
    note(f"[{'OK' if last.state == 'promoted' else '!!'}] Canary of {last.name}: {last.state.replace('_', ' ')}")
    return 0 if last.state == "promoted" else 1


def _print(cli: Session, canary: Canary, *, whole: bool = False) -> bool:
    """Whether it was printed for programs; for people only where they asked to see the whole of it."""
    from easel_cli.canary_words import described
    from easel_cli.output import show
    from easel_sdk.documents import to_dict

    if show(cli, to_dict(canary), [canary.name]):
        return True
    if whole:
        print(described(canary))
    return False


def _sides(canary: Canary) -> str:
    if canary.kind == "group":
        return canary.candidate
    return f"revision {canary.candidate_revision} beside {canary.stable_revision}"
