"""`create modify clone ls desc start stop lock delete schema`: the life of a service."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from easel_cli.command import Session, command
from easel_cli.options import PANEL, AllowInterruption, Define, DryRun, Name, Spec, Timeout, Wait, Yes
from easel_cli.settling import changes, settle

app = typer.Typer()


class SafetyLock(StrEnum):
    """What a lock refuses."""

    none = "none"
    dangerous = "dangerous"
    all = "all"


@command(app, "create", panel=PANEL, output=True,
         example="easel create service.json --wait\neasel create service.json -Dmetadata.cpu=2 --dry-run")  # fmt: skip
async def create(
    cli: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A service.json; - reads it from stdin.")],
    define: Define = None,
    wait: Wait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
) -> None:
    """Deploys a service.json and prints where and with which token to call it."""
    from easel_cli.output import note

    async with cli.client() as client:
        spec = await changes(client, "", file, define or [], merged=False)
        service = await client.services.create(spec, dry_run=dry_run)
        if dry_run:
            note(f"[OK] {file} would be accepted as service {service.service_name}")
            return
        note(f"[OK] Service {service.service_name} is created")
        await settle(cli, client, service, wait=wait, timeout_s=timeout, how_to_call=True)


@command(app, "modify", panel=PANEL, output=True,
         example="easel modify ocr -Dmetadata.instance=2\neasel modify ocr -s service.json --wait")  # fmt: skip
async def modify(
    cli: Session,
    name: Name,
    spec: Spec = None,
    define: Define = None,
    replace: Annotated[bool, typer.Option("--replace", help="FILE is the whole new configuration.")] = False,
    allow_interruption: AllowInterruption = False,
    wait: Wait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
) -> None:
    """Changes a service: a new revision by a rollout, or a scale where only metadata.instance changes.

    With --wait the rollout is shown as it goes; exit code 1 when it is reverted, or stays paused.
    """
    from easel_cli.output import note
    from easel_contracts.errors import InvalidInput

    if spec is None and not define:
        raise InvalidInput("nothing to change", hint="give -s FILE or -Dpath=value")
    if replace and spec is None:
        raise InvalidInput("--replace needs the whole configuration", hint="give it with -s FILE")
    async with cli.client() as client:
        document = await changes(client, name, spec, define or [], merged=not replace)
        service = await client.services.update(
            name, document, replace=replace, dry_run=dry_run, allow_interruption=allow_interruption
        )
        if dry_run:
            note(f"[OK] the change of {name} would be accepted")
            return
        note(f"[OK] Service {name} is changed (generation {service.generation})")
        await settle(cli, client, service, wait=wait, timeout_s=timeout)


@command(app, "clone", panel=PANEL, output=True,
         example="easel clone ocr ocr_next -Dmetadata.cpu=2 --wait")  # fmt: skip
async def clone(
    cli: Session,
    name: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Name of the new service.", show_default=False)],
    spec: Spec = None,
    define: Define = None,
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Makes a new service with the configuration and environment of NAME and a token of its own."""
    from easel_cli.output import note

    async with cli.client() as client:
        laid_over = None
        if spec is not None or define:
            laid_over = await changes(client, name, spec, define or [])
        service = await client.services.clone(name, new, laid_over)
        note(f"[OK] Service {service.service_name} is created as a clone of {name}")
        await settle(cli, client, service, wait=wait, timeout_s=timeout, how_to_call=True)


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
         when(s.create_time), when(s.update_time), f"/api/predict/{s.service_name}", s.service_group, obstacle(s))
        for s in services
    ]  # fmt: skip
    headers = ("SERVICENAME", "INSTANCE", "STATUS", "VERSION", "CREATETIME", "UPDATETIME", "SERVICEPATH", "GROUP",
               "MESSAGE")  # fmt: skip
    table(headers, rows, empty="no services yet: `easel create service.json --wait` deploys one")


@command(app, "desc", panel=PANEL, output=True, example="easel desc ocr\neasel desc ocr -o json")
async def describe(cli: Session, name: Name) -> None:
    """Shows everything about a service: what is wanted, what is, its rollout, and what the gateway does."""
    from easel_cli.describing import description, replicas_of, route_of, traffic_of
    from easel_cli.output import pairs, show
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        service = await client.services.get(name)
        route, silence = await route_of(client, name)
        replicas = await replicas_of(client, name) if cli.is_table else ""
        traffic = await traffic_of(client, name) if cli.is_table else []
    if not show(cli, to_dict(service) | {"route": to_dict(route) if route else None}, [name]):
        pairs(description(service, route, silence, replicas, traffic))


@command(app, "start", panel=PANEL, output=True, example="easel start ocr --wait")
async def start(cli: Session, name: Name, wait: Wait = False, timeout: Timeout = None) -> None:
    """Starts a stopped service."""
    async with cli.client() as client:
        service = await client.services.start(name)
        await settle(cli, client, service, wait=wait, timeout_s=timeout)


@command(app, "stop", panel=PANEL, output=True, example="easel stop ocr --wait")
async def stop(cli: Session, name: Name, wait: Wait = False, timeout: Timeout = None) -> None:
    """Stops every replica of a service; it stays known and can be started again."""
    async with cli.client() as client:
        service = await client.services.stop(name)
        await settle(cli, client, service, "stopped", wait=wait, timeout_s=timeout)


@command(app, "lock", panel=PANEL, output=True, example="easel lock ocr dangerous\neasel lock ocr none")
async def lock(
    cli: Session,
    name: Name,
    lock: Annotated[
        SafetyLock,
        typer.Argument(metavar="none|dangerous|all", help="dangerous: no stop, no delete; all: no change.",
                       show_default=False),
    ],
) -> None:  # fmt: skip
    """Protects a service from being stopped and deleted (dangerous) or from every change (all); none: unlocked."""
    from easel_cli.output import note, show
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        service = await client.services.lock(name, lock.value)
    note(f"[OK] Service {name} is {'unlocked' if lock is SafetyLock.none else f'locked ({lock})'}")
    show(cli, to_dict(service), [name])


@command(app, "delete", panel=PANEL, output=True, example="easel delete ocr -y --wait")
async def delete(cli: Session, name: Name, yes: Yes = False, wait: Wait = False, timeout: Timeout = None) -> int:
    """Deletes a service for good; requests that run are finished first."""
    if not yes and not typer.confirm(f"Are you sure to delete the service [{name}]?", err=True):
        return 1
    async with cli.client() as client:
        service = await client.services.delete(name)
        await settle(cli, client, service, "deleted", wait=wait, timeout_s=timeout)
    return 0


@command(app, "schema", panel=PANEL, example="easel schema > service.schema.json")
async def schema(cli: Session) -> None:
    """Prints the JSON Schema of service.json, for editors."""
    async with cli.client() as client:
        print(json.dumps(await client.services.schema(), indent=2))
