"""`create modify ls desc scale start stop restart delete revisions schema`: the life of a service."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from easel_cli.command import Session, command

if TYPE_CHECKING:
    from easel_sdk import Client
    from easel_sdk.types import Service
    from easel_sdk.waiting import Wanted

PANEL = "Services"
app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the service.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Return when it is done, showing progress.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="S", help="With --wait: seconds at most (900).", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say whether it would be accepted.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", "-f", help="Do not ask.")]


@command(app, "create", panel=PANEL, output=True,
         example="easel create service.json --wait\neasel create service.json --dry-run")  # fmt: skip
async def create(
    cli: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A service.json; - reads it from stdin.")],
    wait: Wait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
) -> None:
    """Deploys a service.json and prints where and with which token to call it."""
    from easel_cli.output import note
    from easel_sdk.spec_file import read_spec

    spec = read_spec(_source(file))
    async with cli.client() as client:
        service = await client.services.create(spec, dry_run=dry_run)
        if dry_run:
            note(f"[OK] {file} would be accepted as service {service.service_name}")
            return
        note(f"[OK] Service {service.service_name} is created")
        await _settle(cli, client, service, "running", wait=wait, timeout_s=timeout, how_to_call=True)


@command(app, "modify", panel=PANEL, output=True,
         example="easel modify ocr -Dmetadata.instance=2\neasel modify ocr -s service.json --wait")  # fmt: skip
async def modify(
    cli: Session,
    name: Name,
    spec: Annotated[str | None, typer.Option("--spec", "-s", metavar="FILE", help="JSON to merge in.")] = None,
    define: Annotated[
        list[str] | None, typer.Option("-D", metavar="PATH=VALUE", help="One key; may be given often.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="FILE is the whole new configuration.")] = False,
    wait: Wait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
) -> None:
    """Changes a service: a new revision, or a scale where only metadata.instance changes."""
    from easel_cli.output import note
    from easel_contracts.errors import InvalidInput

    if spec is None and not define:
        raise InvalidInput("nothing to change", hint="give -s FILE or -Dpath=value")
    if replace and spec is None:
        raise InvalidInput("--replace needs the whole configuration", hint="give it with -s FILE")
    async with cli.client() as client:
        document = await _changes(client, name, spec, define or [], replace)
        service = await client.services.update(name, document, replace=replace, dry_run=dry_run)
        if dry_run:
            note(f"[OK] the change of {name} would be accepted")
            return
        note(f"[OK] Service {name} is changed (generation {service.generation})")
        await _settle(cli, client, service, "running", wait=wait, timeout_s=timeout)


@command(app, "ls", panel=PANEL, output=True, example="easel ls\neasel ls -o json")
async def list_services(cli: Session) -> None:
    """Lists the services."""
    from easel_cli.describing import obstacle
    from easel_cli.output import show, table, when
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        services = await client.services.list()
    if show(cli, [to_dict(s) for s in services], [s.service_name for s in services]):
        return
    rows = [
        (s.service_name, f"{s.running_instance}/{s.total_instance}", s.status, s.current_version,
         when(s.create_time), when(s.update_time), f"/api/predict/{s.service_name}", obstacle(s))
        for s in services
    ]  # fmt: skip
    headers = ("SERVICENAME", "INSTANCE", "STATUS", "VERSION", "CREATETIME", "UPDATETIME", "SERVICEPATH", "MESSAGE")
    table(headers, rows, empty="no services yet: `easel create service.json --wait` deploys one")


@command(app, "desc", panel=PANEL, output=True, example="easel desc ocr\neasel desc ocr -o json")
async def describe(cli: Session, name: Name) -> None:
    """Shows everything about a service."""
    from easel_cli.describing import description
    from easel_cli.output import pairs, show
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        service = await client.services.get(name)
    if not show(cli, to_dict(service), [name]):
        pairs(description(service))


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
        await _settle(cli, client, service, "running", wait=wait, timeout_s=timeout)


@command(app, "start", panel=PANEL, output=True, example="easel start ocr --wait")
async def start(cli: Session, name: Name, wait: Wait = False, timeout: Timeout = None) -> None:
    """Starts a stopped service."""
    async with cli.client() as client:
        service = await client.services.start(name)
        await _settle(cli, client, service, "running", wait=wait, timeout_s=timeout)


@command(app, "stop", panel=PANEL, output=True, example="easel stop ocr --wait")
async def stop(cli: Session, name: Name, wait: Wait = False, timeout: Timeout = None) -> None:
    """Stops every replica of a service; it stays known and can be started again."""
    async with cli.client() as client:
        service = await client.services.stop(name)
        await _settle(cli, client, service, "stopped", wait=wait, timeout_s=timeout)


@command(app, "restart", panel=PANEL, output=True, example="easel restart ocr --wait")
async def restart(cli: Session, name: Name, wait: Wait = False, timeout: Timeout = None) -> None:
    """Replaces every replica, new ones first."""
    async with cli.client() as client:
        service = await client.services.restart(name)
        await _settle(cli, client, service, "running", wait=wait, timeout_s=timeout)


@command(app, "delete", panel=PANEL, output=True, example="easel delete ocr -y --wait")
async def delete(cli: Session, name: Name, yes: Yes = False, wait: Wait = False, timeout: Timeout = None) -> int:
    """Deletes a service for good; requests that run are finished first."""
    if not yes and not typer.confirm(f"Are you sure to delete the service [{name}]?", err=True):
        return 1
    async with cli.client() as client:
        service = await client.services.delete(name)
        await _settle(cli, client, service, "deleted", wait=wait, timeout_s=timeout)
    return 0


@command(app, "revisions", panel=PANEL, output=True, example="easel revisions ocr")
async def revisions(cli: Session, name: Name) -> None:
    """Lists a service's revisions, with the digest of each of their sources."""
    from easel_cli.output import show, table, when
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        found = await client.services.revisions(name)
    if show(cli, [to_dict(r) for r in found], [str(r.number) for r in found]):
        return
    rows = [
        (r.number, r.state, when(r.create_time), ", ".join(f"{s.source} {s.digest[:19]}" for s in r.sources))
        for r in found
    ]
    table(("VERSION", "STATE", "CREATETIME", "SOURCES"), rows)


@command(app, "schema", panel=PANEL, example="easel schema > service.schema.json")
async def schema(cli: Session) -> None:
    """Prints the JSON Schema of service.json, for editors."""
    async with cli.client() as client:
        print(json.dumps(await client.services.schema(), indent=2))


def _source(file: str) -> Any:
    """What `create` and `modify` read: a file, or stdin for `-`."""
    from easel_sdk.spec_file import SpecFile, parse

    if file != "-":
        return Path(file)
    text = sys.stdin.read()
    return SpecFile(text, parse(text, "stdin"), Path.cwd())


async def _changes(client: Client, name: str, spec: str | None, define: list[str], replace: bool) -> Any:
    """The document to send: the file, with each -D made in it."""
    from easel_cli import assignments
    from easel_sdk.spec_file import SpecFile, read_spec

    file = read_spec(_source(spec)) if spec is not None else SpecFile("{}", {}, Path.cwd())
    made = assignments.parse(define)
    if not made:
        return file
    current: dict[str, Any] = {}
    if not replace and assignments.needs_current(made, file.document):
        current = json.loads((await client.services.get(name)).service_config or "{}")
    document = assignments.changes(made, file.document, current)
    return SpecFile(json.dumps(document, indent=2, ensure_ascii=False), document, file.directory)


async def _settle(
    cli: Session,
    client: Client,
    service: Service,
    until: Wanted,
    *,
    wait: bool,
    timeout_s: float | None,
    how_to_call: bool = False,
) -> None:
    """Waits if asked to, then prints the service as it is."""
    from easel_cli.describing import show_how_to_call
    from easel_cli.output import note, show
    from easel_cli.progress import follow, phases
    from easel_sdk.documents import to_dict

    name = service.service_name
    if wait:
        found = await follow(client, name, until, generation=service.generation, timeout_s=timeout_s)
        if found is not None:
            service = found
        if service.phase_s and service.status == "Running":
            note(f"     phases: {phases(service)}")
    if show(cli, to_dict(service), [name]):
        return
    if until != "running":
        if not wait:
            note(f"[OK] Service {name} is being {until}")
        return
    if how_to_call:
        show_how_to_call(service)
    if not wait:
        note(f"it is {service.status}: `easel w {name}` and `easel events -f {name}` show how far it is")
