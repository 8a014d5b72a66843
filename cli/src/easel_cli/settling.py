"""What commands that change a service have in common: what to send, and what to print until it is done."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easel_cli.command import Session

if TYPE_CHECKING:
    from easel_sdk import Client
    from easel_sdk.types import Service
    from easel_sdk.waiting import Wanted


def source(file: str) -> Any:
    """What a command reads: a file, or stdin for `-`."""
    from easel_sdk.spec_file import SpecFile, parse

    if file != "-":
        return Path(file)
    text = sys.stdin.read()
    return SpecFile(text, parse(text, "stdin"), Path.cwd())


async def changes(client: Client, name: str, spec: str | None, define: list[str], *, merged: bool = True) -> Any:
    """The document to send: the file, with each -D made in it.

    `merged`: it will be laid over the configuration of service `name`, whose lists are needed where a -D names a place
    inside of one.
    """
    from easel_cli import assignments
    from easel_sdk.spec_file import SpecFile, read_spec

    file = read_spec(source(spec)) if spec is not None else SpecFile("{}", {}, Path.cwd())
    made = assignments.parse(define)
    if not made:
        return file
    current: dict[str, Any] = {}
    if merged and assignments.needs_current(made, file.document):
        current = json.loads((await client.services.get(name)).service_config or "{}")
    document = assignments.changes(made, file.document, current)
    return SpecFile(json.dumps(document, indent=2, ensure_ascii=False), document, file.directory)


async def settle(
    cli: Session, client: Client, service: Service, until: Wanted = "running", *, wait: bool, timeout_s: float | None,
    how_to_call: bool = False,
) -> None:  # fmt: skip
    """Tells the change's warnings, waits for its end if asked to, then prints the service as it is."""
    from easel_cli.describing import show_how_to_call
    from easel_cli.output import note, show
    from easel_cli.progress import follow, phases
    from easel_sdk.documents import to_dict

    name = service.service_name
    for warning in service.warnings:
        note(f"warning: {warning}")
    if wait:
        service = await follow(client, service, until, timeout_s=timeout_s) or service
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
        note(f"it is {service.status}: {_how_far(service)} how far it is")


def _how_far(service: Service) -> str:
    name = service.service_name
    if service.HasField("rollout"):
        return f"`easel rollout {name} --follow` shows"
    return f"`easel w {name}` and `easel events -f {name}` show"
