"""A service as people read it: EASCMD's two columns, how to call it, what stands in its way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from easel_cli import rollouts
from easel_cli.output import pairs, when
from easel_cli.progress import phases, phases_of

if TYPE_CHECKING:
    from easel_sdk import Client
    from easel_sdk.types import AccessToken, Canary, Mirror, Route, Service

T = TypeVar("T")


def show_how_to_call(service: Service) -> None:
    """Prints URL, token and a line that can be pasted."""
    url, token = service.endpoint, service.token or service.access_token
    pairs(
        [
            ("Endpoint", url),
            ("Token", token),
            ("Call it", f"curl -H 'Authorization: {token}' {url}/"),
            ("", f"easel predict {service.service_name} --body @FILE"),
            *([("Open it", f"easel open {service.service_name}")] if service.web_endpoint else []),
        ]
    )


def obstacle(service: Service) -> str:
    """What stands in the way, in a table's width."""
    text = "" if service.status == "Running" else service.message
    return text if len(text) <= 100 else f"{text[:99]}…"


async def route_of(client: Client, name: str) -> tuple[Route | None, str]:
    """The service's route, or none and why: a router that is away takes nothing from what control knows."""
    from easel_sdk.errors import EaselError, NotFound

    try:
        return await client.routes.get(name), ""
    except NotFound:
        return None, "none yet"
    except EaselError as error:
        return None, f"not known: {error.message}"


async def traffic_of(client: Client, name: str) -> list[tuple[str, object]]:
    """A line for its tokens, for the mirror and for the canary that is on; none for what there is not."""
    tokens, mirror, canary = await asyncio.gather(
        _told(client.tokens.list(name), _tokens),
        _told(client.mirrors.get(name), _mirror),
        _told(client.canaries.get(name), _canary),
    )
    return [(key, said) for key, said in (("Tokens", tokens), ("Mirror", mirror), ("Canary", canary)) if said]


def description(
    service: Service, route: Route | None, silence: str, replicas: str, traffic: list[tuple[str, object]]
) -> list[tuple[str, object]]:
    """EASCMD's two columns; `silence` says why there is no route, `replicas` has a line for each, `traffic` are rows of
    `traffic_of`."""
    return [
        ("Status", service.status),
        ("Reason", service.reason),
        ("Message", service.message),
        ("ServiceName", service.service_name),
        ("ServiceUid", service.service_uid),
        ("CreateTime", when(service.create_time)),
        ("UpdateTime", when(service.update_time)),
        ("Endpoint", service.endpoint),
        ("WebEndpoint", service.web_endpoint or "-"),
        ("AccessToken", service.token or service.access_token),
        ("ServiceGroup", _group(service)),
        ("TotalInstance", service.total_instance),
        ("RunningInstance", service.running_instance),
        ("PendingInstance", service.pending_instance),
        ("WantedInstance", service.wanted_instance),
        ("CPU", service.cpu),
        ("Memory", f"{service.memory} MiB"),
        ("GPU", service.gpu),
        ("CurrentVersion", service.current_version),
        ("LatestVersion", service.latest_version),
        ("Rollout", _rollout(service)),
        ("SafetyLock", service.safety_lock or "none"),
        ("Generation", f"{service.generation} (observed {service.observed_generation})"),
        ("Phases", phases(service)),
        *_at_the_gateway(route, silence),
        *traffic,
        ("Replicas", replicas),
        ("Sources", "\n".join(f"{s.source} {s.digest}" for s in service.sources)),
        ("Labels", ", ".join(f"{label.label_key}={label.label_value}" for label in service.labels)),
        ("ServiceConfig", _pretty(service.service_config)),
    ]


async def replicas_of(client: Client, name: str) -> str:
    """Each replica in a line: its state, what runs it and of which image, where."""
    from easel_cli.replica import runs
    from easel_sdk.errors import EaselError

    try:
        found = await client.replicas.list(name)
    except EaselError as error:
        return f"not known: {error.message}"
    return "\n".join(f"{r.name}  {r.status}  {runs(r)}{f' on {r.node}' if r.node else ''}" for r in found)


async def _told(asked: Awaitable[T], words: Callable[[T], str]) -> str:
    """The answer in words; nothing where there is none, and why where nobody answers."""
    from easel_sdk.errors import EaselError, NotFound

    try:
        return words(await asked)
    except NotFound:
        return ""
    except EaselError as error:
        return f"not known: {error.message}"


def _tokens(tokens: list[AccessToken]) -> str:
    return f"{len(tokens)}: {', '.join(token.name for token in tokens)}" if tokens else ""


def _mirror(mirror: Mirror) -> str:
    compared = ", answers compared" if mirror.HasField("compare") else ""
    share = f"{mirror.percent:g} %" if mirror.percent else "off:"
    return f"{share} to {', '.join(mirror.targets)}{compared}"


def _canary(canary: Canary) -> str:
    from easel_cli.canary_words import line

    return "" if canary.HasField("end_time") else line(canary)


def _group(service: Service) -> str:
    """The group, and what the service does in it."""
    if not service.service_group:
        return ""
    weight = "by replicas" if service.weight < 0 else f"weight {service.weight}"
    part = f"grouping, {weight}" if service.traffic_state == "grouping" else "standalone: none of its traffic"
    return f"{service.service_group} ({part})"


def _rollout(service: Service) -> str:
    if not service.HasField("rollout"):
        return ""
    rollout = service.rollout
    text = f"{rollouts.change(rollout)}, {rollouts.state(rollout)}"
    said = rollouts.message(rollout)
    return f"{text}: {said}" if said else text


def _at_the_gateway(route: Route | None, silence: str) -> list[tuple[str, object]]:
    """What the gateway does with requests, how long one that comes at zero waits, and where that time goes."""
    if route is None:
        return [("Route", silence)]
    state = f"{route.state}, {len(route.replicas)} replicas take traffic"
    if route.refused_reason:
        state += f": {route.refused_reason}"
    rows: list[tuple[str, object]] = [("Route", state)]
    if route.holding or route.held:
        expected = f", about {route.expected_wait_s:.1f} s for one that comes now" if route.expected_wait_s else ""
        rows.append(("Held", f"{route.held} requests wait for a replica{expected}"))
    seen = f" (median of {route.cold_starts})" if route.cold_starts else " (of an older revision)"
    rows.append(("ColdStart", f"{phases_of(route.cold_start_s)}{seen}" if route.cold_start_s else "none seen yet"))
    return rows


def _pretty(config: str) -> str:
    try:
        return json.dumps(json.loads(config), indent=2, ensure_ascii=False)
    except ValueError:
        return config
