"""`w logs dw isolate unisolate`: the running copies of a service, what they print, and single ones of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from easel_cli.command import Session, command
from easel_cli.options import PANEL, Name, Timeout, Wait, Yes

if TYPE_CHECKING:
    from easel_sdk import Client
    from easel_sdk.types import LogChunk, Replica

app = typer.Typer()


@command(app, "w", panel=PANEL, output=True, example="easel w ocr\neasel w ocr -o json")
async def workers(
    cli: Session,
    name: Name,
    all: Annotated[bool, typer.Option("--all", "-a", help="Also those that have ended.")] = False,
) -> None:
    """Lists a service's replicas ("workers")."""
    from easel_cli.output import show, table, when

    async with cli.client() as client:
        replicas = await client.replicas.list(name, all=all)
        replicas = replicas or await _none(client, name)
    if show(cli, [worker(r) for r in replicas], [r.name for r in replicas]):
        return
    rows = [
        (r.name, r.address, r.node, when(r.create_time), r.restarts, r.status, "[1/1]" if r.ready else "[0/1]",
         "yes" if r.isolated else "no", r.revision, runs(r), r.reason, r.message)
        for r in replicas
    ]  # fmt: skip
    headers = ("INSTANCENAME", "INNERIP", "HOST", "STARTAT", "RESTARTS", "STATUS", "READY", "ISOLATED", "VERSION",
               "RUNTIME", "REASON", "MESSAGE")  # fmt: skip
    table(headers, rows, empty=f"{name} has no replicas now; `easel explain {name}` says why")


@command(app, "logs", panel=PANEL, example="easel logs ocr -f\neasel logs ocr --previous --tail 50")
async def logs(
    cli: Session,
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is printed.")] = False,
    replica: Annotated[str, typer.Option("--replica", help="Of this replica only.", show_default=False)] = "",
    tail: Annotated[int, typer.Option("--tail", "-n", metavar="N", help="Lines to begin with; -1: all.")] = 200,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="The run before the last restart.")] = False,
) -> None:
    """Prints what a service's replicas print; with several, each line after its replica's name."""
    printer = _LinePrinter(prefixed=not replica and sys.stdout.isatty())
    async with cli.client() as client:
        if not replica:
            found = await client.replicas.list(name) or await _none(client, name)
            printer.prefixed = len(found) > 1 or follow
        async for chunk in client.replicas.logs(
            name, replica=replica, tail_lines=tail, follow=follow, previous=previous
        ):
            printer.add(chunk)
    printer.finish()


@command(app, "dw", panel=PANEL, output=True,
         example="easel dw ocr ocr-3-x7k2p,ocr-3-m4q9d\neasel dw ocr ocr-3-x7k2p --soft -y --wait")  # fmt: skip
async def delete_workers(
    cli: Session,
    name: Name,
    replicas: Annotated[
        list[str], typer.Argument(metavar="REPLICA[,REPLICA...]", help="From `easel w`.", show_default=False)
    ],
    now: Annotated[bool, typer.Option("--now", help="Drain them at once, without waiting for successors.")] = False,
    soft: Annotated[bool, typer.Option("--soft", help="Start their processes anew in their places instead.")] = False,
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
) -> int:
    """Replaces single replicas: a successor comes first where there is room, then the old one drains."""
    from easel_contracts.errors import InvalidInput

    names = [part.strip() for text in replicas for part in text.split(",") if part.strip()]
    if soft and now:
        raise InvalidInput("--soft and --now exclude each other", hint="--soft keeps the replica, --now ends it")
    if not names:
        raise InvalidInput("no replica is named", hint=f"`easel w {name}` lists them")
    if not yes and not _confirmed(name, names, "restart" if soft else "replace"):
        return 1
    async with cli.client() as client:
        living = {replica.name: replica for replica in await living_replicas(client, name)}
        before = [living.get(each) or _unknown(name, each) for each in names]
        await restart_replicas(cli, client, name, before, soft=soft, now=now, wait=wait, timeout_s=timeout)
    return 0


@command(app, "isolate", panel=PANEL, output=True,
         example="easel isolate ocr ocr-3-x7k2p\neasel isolate ocr ocr-3-x7k2p --back")  # fmt: skip
async def isolate(
    cli: Session,
    name: Name,
    replica: Annotated[str, typer.Argument(metavar="REPLICA", help="From `easel w`.", show_default=False)],
    back: Annotated[bool, typer.Option("--back", help="Let it take traffic again.")] = False,
) -> None:
    """Takes a replica out of traffic without ending it, to be looked at; another takes its place."""
    await _isolate(cli, name, replica, isolated=not back)


@command(app, "unisolate", panel=PANEL, output=True, example="easel unisolate ocr ocr-3-x7k2p")
async def unisolate(
    cli: Session,
    name: Name,
    replica: Annotated[str, typer.Argument(metavar="REPLICA", help="From `easel w`.", show_default=False)],
) -> None:
    """Lets an isolated replica take traffic again."""
    await _isolate(cli, name, replica, isolated=False)


async def living_replicas(client: Client, name: str) -> list[Replica]:
    """Those that live; where none does, the platform's list has the one that failed last. Raises NotFound."""
    from easel_sdk.waiting import ENDED

    found = await client.replicas.list(name) or await _none(client, name)
    return [replica for replica in found if replica.status not in ENDED]


async def restart_replicas(
    cli: Session, client: Client, name: str, before: Sequence[Replica], *, soft: bool, now: bool, wait: bool,
    timeout_s: float | None,
) -> None:  # fmt: skip
    """Has replicas replaced or restarted in place, waits if asked to, and prints them as they are then."""
    from easel_cli.output import note, show
    from easel_cli.progress import follow_replacement

    if not before:
        note(f"{name} has no replicas now: nothing to restart")
        return
    found = await client.replicas.restart(name, [replica.name for replica in before], soft=soft, now=now)
    note(f"[OK] {_many(len(found))} of {name} {'is' if len(found) == 1 else 'are'} being "
         f"{'restarted one by one' if soft and len(found) > 1 else 'restarted' if soft else 'replaced'}")  # fmt: skip
    if wait:
        await follow_replacement(client, name, before, soft=soft, timeout_s=timeout_s)
        found = await client.replicas.list(name)
    elif cli.is_table:
        note(f"`easel w {name}` shows how far it is")
    show(cli, [worker(r) for r in found], [r.name for r in found])


async def _isolate(cli: Session, name: str, replica: str, *, isolated: bool) -> None:
    from easel_cli.output import note, show

    async with cli.client() as client:
        found = await client.replicas.isolate(name, replica, isolated=isolated)
    note(f"[OK] {replica} is taken out of traffic; it runs on, and `easel unisolate {name} {replica}` lets it back"
         if isolated else f"[OK] {replica} may take traffic again")  # fmt: skip
    show(cli, worker(found), [found.name])


def _confirmed(name: str, replicas: list[str], verb: str) -> bool:
    """Asks as EASCMD does. Raises InvalidInput where nobody can be asked."""
    from easel_contracts.errors import InvalidInput

    question = f"Are you sure to {verb} the replicas [{', '.join(replicas)}] of service [{name}]?"
    if not sys.stdin.isatty():
        raise InvalidInput(f"{question} Nobody can be asked here", code="NOT_CONFIRMED", hint="-y says yes")
    return typer.confirm(question, default=True, err=True)


def _unknown(name: str, replica: str) -> Replica:
    from easel_contracts.errors import NotFound

    raise NotFound("NO_SUCH_REPLICA", f"{name} has no replica {replica} that lives", f"`easel w {name}` lists them")


def _many(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"


async def _none(client: Client, name: str) -> list[Replica]:
    """No replicas; raises NotFound where there is no such service."""
    await client.services.get(name)
    return []


def worker(replica: Replica) -> dict[str, Any]:
    """A replica as `w -o json` shows it."""
    place: dict[str, Any] = {"container": replica.container} if replica.container else {"pid": replica.pid or None}
    return {
        "name": replica.name,
        "status": replica.status,
        "ready": replica.ready,
        "node": replica.node,
        "address": replica.address,
        **place,
        "restarts": replica.restarts,
        "reason": replica.reason,
        "revision": replica.revision,
        "isolated": replica.isolated,
        "runtime": replica.runtime,
        "pins": dict(replica.pins),
    }


def runs(replica: Replica) -> str:
    """What runs it, and which image: `docker sha256:0123456789ab`."""
    head, colon, digest = replica.pins.get("containers[0].image", "").rpartition(":")
    return f"{replica.runtime} {head}{colon}{digest[:12]}".rstrip()


class _LinePrinter:
    """Whole lines of several replicas, never mixed within a line."""

    def __init__(self, prefixed: bool) -> None:
        self.prefixed = prefixed
        self._rest: dict[tuple[str, str], bytes] = {}

    def add(self, chunk: LogChunk) -> None:
        """Prints the lines that a chunk completes."""
        key = (chunk.replica, chunk.stream)
        *lines, self._rest[key] = (self._rest.get(key, b"") + chunk.data).split(b"\n")
        for line in lines:
            self._print(key, line)
        sys.stdout.flush()

    def finish(self) -> None:
        """Prints what had no line end."""
        for key, rest in self._rest.items():
            if rest:
                self._print(key, rest)

    def _print(self, key: tuple[str, str], line: bytes) -> None:
        replica, stream = key
        mark = "-- " if stream == "event" else ""
        prefix = f"{replica} | " if self.prefixed else ""
        print(f"{prefix}{mark}{line.decode(errors='replace')}")
