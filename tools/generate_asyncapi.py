"""Generates docs/asyncapi.yaml (AsyncAPI 3.0) from the contracts; with --check says whether it is up to date.

Everything in it comes from code: the facts from facts.VERBS and STATE_OF, the metrics from metrics.py, the webhook's
body from what the monitor sends. Nothing is written by hand but the sentences about channels.
"""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

import msgspec
import yaml

from easel_contracts import facts, metrics
from easel_contracts.ids import SERVICE_NAME
from easel_kit.streams import DEAD, FACTS, stream_configs

OUT = Path(__file__).resolve().parent.parent / "docs" / "asyncapi.yaml"
HEADER = "# Generated from the contracts by tools/generate_asyncapi.py; do not edit.\n"

Json = dict[str, Any]

METRICS: dict[str, tuple[type[msgspec.Struct], str]] = {
    "service": (metrics.ServiceMetrics, "the service's name"),
    "replica": (metrics.ReplicaMetrics, "the replica's id"),
    "node": (metrics.NodeMetrics, "the node's id"),
    "hold": (metrics.HoldMetrics, "the service's name"),
}
KEY_OF = {
    "node": "the node's id",
    "key": "the access key's id",
}
"""What stands for <key> in a fact's subject; otherwise the service's name."""


def document() -> Json:
    """The whole AsyncAPI document."""
    structs: list[Any] = [facts.Cause, *facts.STATE_OF.values(), *(kind for kind, _ in METRICS.values())]
    _, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    schemas |= {f"{entity}Fact": _fact(entity) for entity in facts.VERBS}
    schemas["CloudEvent"] = _cloud_event()
    messages = {**_fact_messages(), **_metric_messages(), "deadLetter": _dead_letter(), "webhook": _webhook()}
    return {
        "asyncapi": "3.0.0",
        "info": _info(),
        "defaultContentType": "application/msgpack",
        "servers": {
            "nats": {
                "host": "{host}",
                "protocol": "nats",
                "description": "The platform's bus. `easel events token` gives an address and read-only credentials "
                "(an nkey seed) that may subscribe to facts and read the stream, and nothing else.",
                "variables": {"host": {"default": "127.0.0.1:4222"}},
                "security": [{"$ref": "#/components/securitySchemes/nkey"}],
            }
        },
        "channels": {**_fact_channels(), **_metric_channels(), "deadLetters": _dead_channel(), "webhooks": _hooks()},
        "operations": _operations(),
        "components": {
            "messages": messages,
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "nkey": {
                    "type": "asymmetricEncryption",
                    "description": "NATS nkey: the server sends a nonce, the client signs it with its seed.",
                }
            },
        },
    }


def render() -> str:
    """The document as YAML, stable from run to run."""
    text: str = yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=110)
    return HEADER + text


def _info() -> Json:
    config = next(c for c in stream_configs() if c.name == FACTS)
    days = (config.max_age or 0) / 86_400
    return {
        "title": "Easel events",
        "version": f"{facts.SCHEMA_VERSION}.0.0",
        "description": "What happens on an Easel platform, told to everyone who asks. Facts are state changes, kept "
        f"for {days:g} days in the JetStream stream `{FACTS}`; each carries its entity's whole public state, and no "
        "secrets. `row_version` rises with every write of an entity and `epoch` stands before it: drop what is not "
        "newer. A message may arrive twice: `id` tells. Readers ignore fields they do not know. One-second metrics are "
        "core NATS messages and are not stored.",
        "license": {"name": "Apache-2.0"},
    }


# --- facts


def _fact(entity: facts.Entity) -> Json:
    """The envelope, with `data` as this entity's state: msgspec.Raw in code, a struct on the wire."""
    _, components = msgspec.json.schema_components([_Envelope], ref_template="#/components/schemas/{name}")
    schema: Json = components["_Envelope"]
    properties: Json = schema["properties"]
    properties["at"] = {"format": "date-time", "description": "MessagePack's timestamp extension (type -1), UTC."}
    properties["entity"] = {"const": entity}
    properties["verb"] = {"enum": list(facts.VERBS[entity])}
    properties["data"] = {"$ref": f"#/components/schemas/{facts.STATE_OF[entity].__name__}"}
    schema["title"] = f"A fact about a {entity}"
    schema["description"] = _doc(facts.STATE_OF[entity])
    return schema


_Envelope = msgspec.defstruct(
    "_Envelope",
    [
        (field.name, Any if field.type is msgspec.Raw else field.type)
        if field.required
        else (field.name, field.type, field.default)
        for field in msgspec.structs.fields(facts.Fact)
    ],
    kw_only=True,
)
"""facts.Fact as far as a schema can say it: Raw has none."""


def _fact_messages() -> Json:
    return {
        f"{entity}.{verb}": {
            "name": f"{entity}.{verb}",
            "title": f"{entity} {verb}".replace("_", " "),
            "contentType": "application/msgpack",
            "headers": {
                "type": "object",
                "properties": {
                    "Nats-Msg-Id": {"type": "string", "description": "The fact's id."},
                    "traceparent": {"type": "string", "description": "W3C trace context of what led here."},
                },
            },
            "payload": {"$ref": f"#/components/schemas/{entity}Fact"},
        }
        for entity, verbs in facts.VERBS.items()
        for verb in verbs
    }


def _fact_channels() -> Json:
    return {
        f"{entity}Facts": {
            "address": f"easel.fact.{{workspace}}.{entity}.{{key}}.{{verb}}",
            "title": f"Facts about {entity}s",
            "messages": {verb: {"$ref": f"#/components/messages/{entity}.{verb}"} for verb in verbs},
            "parameters": {
                "workspace": _workspace(),
                "key": {"description": KEY_OF.get(entity, f"the service's name: {SERVICE_NAME.pattern}")},
                "verb": {"enum": list(verbs), "description": "What happened."},
            },
            "servers": [{"$ref": "#/servers/nats"}],
        }
        for entity, verbs in facts.VERBS.items()
    }


# --- metrics


def _metric_messages() -> Json:
    return {
        f"metric.{kind}": {
            "name": kind,
            "title": _doc(struct),
            "contentType": "application/msgpack",
            "payload": {"$ref": f"#/components/schemas/{struct.__name__}"},
        }
        for kind, (struct, _) in METRICS.items()
    }


def _metric_channels() -> Json:
    return {
        f"{kind}Metrics": {
            "address": f"easel.metric.{{workspace}}.{kind}.{{key}}",
            "title": f"One second of a {kind}; not stored",
            "messages": {kind: {"$ref": f"#/components/messages/metric.{kind}"}},
            "parameters": {"workspace": _workspace(), "key": {"description": key}},
            "servers": [{"$ref": "#/servers/nats"}],
        }
        for kind, (_, key) in METRICS.items()
    }


# --- dead letters and webhooks


def _dead_letter() -> Json:
    names = {
        "Easel-Subject": "Where the fact was published.",
        "Easel-Sequence": f"Its sequence in {FACTS}.",
        "Easel-Consumer": "The process that could not handle it.",
        "Easel-Error": "Why.",
    }
    return {
        "name": "deadLetter",
        "title": "A fact that a process could not handle",
        "contentType": "application/msgpack",
        "headers": {
            "type": "object",
            "properties": {name: {"type": "string", "description": text} for name, text in names.items()},
        },
        "payload": {"description": "The fact as it was published; it may be unreadable."},
    }


def _dead_channel() -> Json:
    return {
        "address": "easel.dead.{process}",
        "title": f"Dead letters, stream {DEAD}; for operators (`easel events --dead`), not for read-only credentials",
        "messages": {"deadLetter": {"$ref": "#/components/messages/deadLetter"}},
        "parameters": {"process": {"description": "The process that could not handle it."}},
        "servers": [{"$ref": "#/servers/nats"}],
    }


def _webhook() -> Json:
    names = {
        "webhook-id": "The fact's id; a receiver drops what it has seen.",
        "webhook-timestamp": "Unix seconds of this try.",
        "webhook-signature": "`v1,` and the base64 HMAC-SHA256 of `id.timestamp.body` with the webhook's secret.",
    }
    return {
        "name": "webhook",
        "title": "A fact as CloudEvent 1.0 (structured JSON), POSTed in the stream's order until answered 2xx",
        "contentType": "application/cloudevents+json",
        "headers": {
            "type": "object",
            "required": list(names),
            "properties": {name: {"type": "string", "description": text} for name, text in names.items()},
        },
        "payload": {"$ref": "#/components/schemas/CloudEvent"},
    }


def _hooks() -> Json:
    return {
        "address": None,
        "title": "Your own URL (Events.CreateWebhook)",
        "messages": {"webhook": {"$ref": "#/components/messages/webhook"}},
    }


def _cloud_event() -> Json:
    text: Json = {"type": "string"}
    number: Json = {"type": "integer"}
    states = sorted({kind.__name__ for kind in facts.STATE_OF.values()})
    data = {
        **dict.fromkeys(("workspace", "entity", "verb", "key"), text),
        **dict.fromkeys(("epoch", "generation", "row_version"), number),
        **dict.fromkeys(("reason", "message", "actor"), text),
        "state": {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in states]},
    }
    types = [f"easel.{entity}.{verb}" for entity, verbs in facts.VERBS.items() for verb in verbs]
    properties: Json = {
        "specversion": {"const": "1.0"},
        "id": text,
        "source": {"type": "string", "description": "/easel/<workspace>/<entity>"},
        "type": {"enum": types},
        "subject": {"type": "string", "description": "The key."},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "sequence": {"type": "string", "description": f"Sequence in {FACTS}, zero-padded (CloudEvents extension)."},
        "traceparent": {"type": "string", "description": "W3C trace context (CloudEvents extension)."},
        "data": {"type": "object", "properties": data, "required": list(data)},
    }
    required = [name for name in properties if name != "traceparent"]
    return {"type": "object", "title": "A fact as CloudEvent", "properties": properties, "required": required}


def _operations() -> Json:
    channels = [*_fact_channels(), *_metric_channels(), "deadLetters", "webhooks"]
    return {
        f"tell{name[0].upper()}{name[1:]}": {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
        for name in channels
    }


def _workspace() -> Json:
    return {"default": "default", "description": "The workspace; `default` where none was made."}


def _doc(kind: type) -> str:
    return (inspect.getdoc(kind) or kind.__name__).split("\n\n")[0].replace("\n", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 when out of date")
    text = render()
    if not parser.parse_args().check:
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(text)
        return
    if not OUT.exists() or OUT.read_text() != text:
        raise SystemExit("docs/asyncapi.yaml is out of date, run tools/generate_asyncapi.py")


if __name__ == "__main__":
    main()
