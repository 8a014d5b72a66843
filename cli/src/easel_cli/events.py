"""`events webhook`: what happens, as it happens, here or at an address."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from easel_cli.command import Format, Session, command

if TYPE_CHECKING:
    from easel_sdk.types import Event, Webhook

PANEL = "Looking"
app = typer.Typer()
webhook_app = typer.Typer(no_args_is_help=True)

Entity = Annotated[str, typer.Option("--entity", help="service, replica, scale, route, node …", show_default=False)]


@command(app, "events", panel=PANEL, output=True,
         example="easel events -f ocr\neasel events --dead -o json\neasel events token")  # fmt: skip
async def events(
    cli: Session,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="Of this service or node; `token`: credentials instead.", show_default=False
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen.")] = False,
    dead: Annotated[bool, typer.Option("--dead", help="What could not be handled, with the error.")] = False,
    entity: Entity = "",
    tail: Annotated[int, typer.Option("--tail", "-n", metavar="N", help="So many of the newest first.")] = 50,
    since: Annotated[
        int, typer.Option("--from", metavar="SEQUENCE", help="From this sequence on.", show_default=False)
    ] = 0,
) -> None:
    """Shows events, oldest first. `easel events token` prints read-only NATS credentials for them.

    A service that is called `token` is watched by `easel events --entity service`.
    """
    from easel_cli.output import note

    if name == "token":
        await _token(cli)
        return
    async with cli.client() as client:
        stream = client.events.watch(
            entity=entity, key=name or "", from_sequence=since, tail=0 if since else tail, follow=follow, dead=dead,
            on_gap=lambda error: note(f"the stream broke ({error.message}); it is taken up again"),
        )  # fmt: skip
        count = 0
        async for event in stream:
            count += 1
            print(_line(cli.output, event), flush=True)
    if not count and not dead:
        note(f"no events of {name}: is the name right? `easel ls`, `easel node ls`" if name else "no such events yet")


async def _token(cli: Session) -> None:
    from easel_cli.output import note, pairs, show
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        token = await client.events.create_token()
    if not show(cli, to_dict(token), [token.nkey_seed]):
        pairs([("nats_url", token.nats_url), ("nkey_seed", token.nkey_seed), ("stream", token.stream),
               ("subject", token.subject), ("inbox_prefix", token.inbox_prefix)])  # fmt: skip
        note("read only; keep the seed to yourself")


@command(webhook_app, "add", panel=PANEL, output=True, example="easel webhook add https://example.org/hook --key ocr")
async def add(
    cli: Session,
    url: Annotated[str, typer.Argument(metavar="URL", help="http(s) address that gets CloudEvents.")],
    entity: Entity = "",
    key: Annotated[str, typer.Option("--key", help="Of this service or node only.", show_default=False)] = "",
) -> None:
    """Has events posted to an address, signed with a secret that is shown once."""
    from easel_cli.output import note, pairs, show
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        webhook = await client.events.create_webhook(url, entity=entity, key=key)
    if not show(cli, to_dict(webhook), [webhook.id]):
        pairs([("Id", webhook.id), ("URL", webhook.url), ("Secret", webhook.secret)])
        note("the secret signs every request (HMAC-SHA256) and is not shown again")


@command(webhook_app, "ls", panel=PANEL, output=True, example="easel webhook ls")
async def list_webhooks(cli: Session) -> None:
    """Lists the webhooks, how far each is and what went wrong last."""
    from easel_cli.output import show, table
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        found = await client.events.list_webhooks()
    if not show(cli, [to_dict(w) for w in found], [w.id for w in found]):
        headers = ("ID", "URL", "ENTITY", "KEY", "DELIVERED", "FAILURES", "LASTERROR")
        table(headers, [_row(w) for w in found], empty="no webhooks: `easel webhook add URL` makes one")


@command(webhook_app, "rm", panel=PANEL, example="easel webhook rm 0198c0de-0000-7000-8000-000000000000")
async def remove(cli: Session, id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Ends a webhook."""
    from easel_cli.output import note

    async with cli.client() as client:
        await client.events.delete_webhook(id)
    note(f"[OK] Webhook {id} is removed")


def _row(webhook: Webhook) -> tuple[object, ...]:
    return (webhook.id, webhook.url, webhook.entity, webhook.key, webhook.delivered_sequence, webhook.failures,
            webhook.last_error)  # fmt: skip


def _line(output: Format, event: Event) -> str:
    """An event in one line."""
    from easel_cli.output import when

    if output is Format.table:
        actor = f"  by {event.actor}" if event.actor else ""
        failed = f"  ERROR {event.error}" if event.error else ""
        return f"{when(event.at)}  {event.type:<24} {event.key:<20} {event.reason}  {event.message}{actor}{failed}"
    if output is Format.name:
        return f"{event.type} {event.key}"
    text = json.dumps(document(event), ensure_ascii=False)
    return f"- {text}" if output is Format.yaml else text  # a JSON object is YAML


def document(event: Event) -> dict[str, Any]:
    """An event as `events -o json` shows it: its fields, and the entity's state as `data`."""
    from easel_sdk.documents import to_dict

    fields = to_dict(event)
    data = fields.pop("data_json")
    try:
        fields["data"] = json.loads(data) if data else None
    except ValueError:
        fields["data"] = data
    return fields
