"""`w logs`: the running copies of a service, and what they print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from easel_cli.command import Session, command
from easel_cli.service import Name

if TYPE_CHECKING:
    from easel_sdk import Client
    from easel_sdk.types import LogChunk, Replica

PANEL = "Services"
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
         r.revision, r.reason, r.message)
        for r in replicas
    ]  # fmt: skip
    headers = ("INSTANCENAME", "INNERIP", "HOST", "STARTAT", "RESTARTS", "STATUS", "READY", "VERSION", "REASON",
               "MESSAGE")  # fmt: skip
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
    }


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
