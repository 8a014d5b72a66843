"""`metrics top explain audit node`: how it goes, and why."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from easel_cli.command import Session, command
from easel_cli.options import Name

if TYPE_CHECKING:
    from easel_contracts.errors import EaselError
    from easel_sdk import Client
    from easel_sdk.types import MetricsPoint, Node, Service

PANEL = "Looking"
app = typer.Typer()
node_app = typer.Typer(no_args_is_help=True)

Window = Annotated[int, typer.Option("--window", metavar="S", min=1, max=3600, help="Seconds to look back.")]


@command(app, "metrics", panel=PANEL, output=True, example="easel metrics ocr --window 300\neasel metrics ocr -o json")
async def metrics(cli: Session, name: Name, window: Window = 60) -> None:
    """Shows requests, latency, CPU and memory of a service over a window."""
    from easel_cli.output import pairs, show
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        found = await client.metrics.get(name, window_s=window)
    if show(cli, to_dict(found), [name]):
        return
    s = found.summary
    codes = "  ".join(f"{code} {rate:.1f}/s" for code, rate in sorted(s.qps_by_code.items()))
    refused = "  ".join(f"{code} {rate:.1f}/s" for code, rate in sorted(s.refused_by_code.items()))
    pairs([
        ("Service", f"{found.name}, last {found.window_s} s, {len(found.points)} seconds known"),
        ("Requests", f"{_known(s, 'qps', '{:.1f}/s')}   {codes}   retries {_known(s, 'retries_per_s', '{:.2f}/s')}"),
        *([("Refused", f"{refused}   by the gateway itself")] if refused else []),
        ("In flight", _known(s, "in_flight", "{:.1f}")),
        ("Latency", f"p50 {_ms(s, 'p50')}  p90 {_ms(s, 'p90')}  p99 {_ms(s, 'p99')}  p99.9 {_ms(s, 'p999')}"),
        ("CPU", _known(s, "cpu_cores", "{:.2f} cores")),
        ("Memory", _known(s, "memory_mib", "{:.0f} MiB")),
        ("Replicas", f"{_known(s, 'replicas_ready', '{}')} ready of {_known(s, 'replicas_total', '{}')}"),
    ])  # fmt: skip


@command(app, "top", panel=PANEL, example="easel top\neasel top --once")
async def top(
    cli: Session,
    interval: Annotated[float, typer.Option("--interval", "-n", metavar="S", min=0.2, help="Seconds.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="One look, then end.")] = False,
) -> None:
    """Shows all services live: load, latency, CPU, memory, replicas. Ctrl-C ends it."""
    from easel_cli.output import table

    async with cli.client() as client:
        if once or not sys.stdout.isatty():
            table(_TOP, await _look(client), empty="no services")
            return
        await _live(client, interval)


@command(app, "explain", panel=PANEL, output=True, example="easel explain ocr\neasel explain my_group")
async def explain(
    cli: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the service or group.", show_default=False)],
) -> None:
    """Says why a service or a group is as it is: what each part of the platform knows and decided."""
    from easel_cli.output import show
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        parts = await client.explain(name)
    document = [
        to_dict(p.explanation) | {"part": p.part}
        if p.explanation
        else {"part": p.part, "lines": [], "error": p.error.message if p.error else ""}
        for p in parts
    ]
    if show(cli, document, [p.part for p in parts]):
        return
    for part in parts:
        print(part.part)
        if part.explanation is None:
            print(f"  {_silence(part.error)}")
            continue
        for line in part.explanation.lines:
            print(f"  {line.code}: {line.message}")
            if line.hint:
                print(f"      → {line.hint}")


def _silence(error: EaselError | None) -> str:
    """Why a part has explained nothing."""
    from easel_contracts.errors import NotFound

    message = error.message if error else "no answer"
    return f"knows nothing of it: {message}" if isinstance(error, NotFound) else f"does not answer: {message}"


@command(app, "audit", panel=PANEL, output=True, example="easel audit --target service/ocr")
async def audit(
    cli: Session,
    target: Annotated[str, typer.Option("--target", help="E.g. service/ocr.", show_default=False)] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Records at most.")] = 50,
) -> None:
    """Shows who changed what, from where."""
    from easel_cli.output import show, table, when
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        records = await client.audit.list(target=target, limit=limit)
    if records.incomplete:
        print(f"incomplete: {records.incomplete}", file=sys.stderr)
    if show(cli, [to_dict(r) for r in records], [str(r.id) for r in records]):
        return
    rows = [(when(r.at), r.actor, r.source, r.action, r.target, r.request_id) for r in records]
    table(("AT", "ACTOR", "FROM", "ACTION", "TARGET", "REQUEST"), rows, empty="no changes are recorded yet")


@command(node_app, "ls", panel=PANEL, output=True, example="easel node ls")
async def list_nodes(cli: Session) -> None:
    """Lists the nodes, and how much of each is reserved."""
    from easel_cli.output import show, table, when
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        nodes = await client.nodes.list()
    if show(cli, [to_dict(n) for n in nodes], [n.node for n in nodes]):
        return
    rows = [
        (n.node, n.state, n.address, f"{n.cpu_used:g}/{n.cpu:g}", f"{n.memory_used_mib}/{n.memory_mib} MiB",
         f"{n.gpu_used}/{n.gpu}", n.replicas, _runtimes(n), n.isolation, n.limits, n.capacity, when(n.last_seen_time))
        for n in nodes
    ]  # fmt: skip
    headers = ("NODE", "STATE", "ADDRESS", "CPU", "MEMORY", "GPU", "REPLICAS", "RUNTIMES", "ISOLATION", "LIMITS",
               "CAPACITY", "LASTSEEN")  # fmt: skip
    table(headers, rows, empty="no nodes: is the agent running? `easel status`")


@command(node_app, "desc", panel=PANEL, output=True, example="easel node desc local")
async def describe_node(cli: Session, node: Annotated[str, typer.Argument(metavar="NODE")]) -> None:
    """Shows everything about a node."""
    from easel_cli.output import pairs, show
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        found = await client.nodes.get(node)
    if not show(cli, to_dict(found), [node]):
        runtimes = "\n".join(_runtime(r.name, r.version, r.why_not) for r in found.runtimes)
        pairs((to_dict(found) | {"runtimes": runtimes}).items())


def _runtimes(node: Node) -> str:
    """What it can run and with which version; what it cannot, and why."""
    return ", ".join(
        _runtime(r.name, number[0] if (number := re.findall(r"\d+\.\d+", r.version)) else "", r.why_not)
        for r in node.runtimes
    )


def _runtime(name: str, version: str, why_not: str) -> str:
    if why_not:
        return f"{name}: not here ({why_not})"
    return f"{name} {version}".rstrip()


_TOP = ("SERVICE", "STATUS", "READY", "QPS", "5XX/S", "IN FLIGHT", "P50", "P99", "CPU", "MEMORY")
_LOOK_BACK_S = 5


async def _look(client: Client) -> list[tuple[object, ...]]:
    services = await client.services.list()
    points = await asyncio.gather(*(_summary(client, service) for service in services))
    return [_row(service, point) for service, point in zip(services, points, strict=True)]


async def _summary(client: Client, service: Service) -> MetricsPoint | None:
    """The last seconds; None where nothing is known, which is not zero."""
    from easel_sdk.errors import EaselError

    try:
        found = await client.metrics.get(service.service_name, window_s=_LOOK_BACK_S)
    except EaselError:
        return None
    return found.summary if found.points else None


def _row(service: Service, point: MetricsPoint | None) -> tuple[object, ...]:
    head = (service.service_name, service.status, f"{service.running_instance}/{service.total_instance}")
    if point is None:
        return (*head, *("-",) * 7)
    errors = f"{point.qps_by_code.get('5xx', 0.0):.1f}" if point.HasField("qps") else "-"
    return (*head, _known(point, "qps", "{:.1f}"), errors, _known(point, "in_flight", "{:.0f}"),
            _ms(point, "p50"), _ms(point, "p99"), _known(point, "cpu_cores", "{:.2f}"),
            _known(point, "memory_mib", "{:.0f} MiB"))  # fmt: skip


async def _live(client: Client, interval_s: float) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, screen=True) as live:
        while True:
            live.update(_grid(await _look(client)), refresh=True)
            await asyncio.sleep(interval_s)


def _grid(rows: list[tuple[object, ...]]) -> Any:
    from rich.table import Table

    grid = Table(title=f"easel top: the last {_LOOK_BACK_S} seconds, Ctrl-C ends", title_justify="left", box=None)
    for index, header in enumerate(_TOP):
        grid.add_column(header, justify="left" if index < 2 else "right")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    return grid


def _ms(point: MetricsPoint, quantile: str) -> str:
    """A latency; a dash where nothing was answered, which is not 0 ms."""
    return _known(point, f"latency_{quantile}_ms", "{:.1f} ms")


def _known(point: MetricsPoint, field: str, form: str) -> str:
    """A measured value; a dash where it is not known, which is not zero."""
    value = getattr(point, field)
    return form.format(value) if point.HasField(field) and value == value else "-"  # type: ignore[arg-type]
