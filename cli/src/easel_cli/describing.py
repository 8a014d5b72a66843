"""A service as people read it: EASCMD's two columns, how to call it, what stands in its way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from easel_cli.output import pairs, when
from easel_cli.progress import phases

if TYPE_CHECKING:
    from easel_sdk.types import Service


def show_how_to_call(service: Service) -> None:
    """Prints URL, token and a line that can be pasted."""
    url, token = service.endpoint, service.token or service.access_token
    pairs(
        [
            ("Endpoint", url),
            ("Token", token),
            ("Call it", f"curl -H 'Authorization: {token}' {url}/"),
            ("", f"easel predict {service.service_name} --body @FILE"),
        ]
    )


def obstacle(service: Service) -> str:
    """What stands in the way, in a table's width."""
    text = "" if service.status == "Running" else service.message
    return text if len(text) <= 100 else f"{text[:99]}…"


def description(service: Service) -> list[tuple[str, object]]:
    """EASCMD's two columns."""
    return [
        ("Status", service.status),
        ("Reason", service.reason),
        ("Message", service.message),
        ("ServiceName", service.service_name),
        ("ServiceUid", service.service_uid),
        ("CreateTime", when(service.create_time)),
        ("UpdateTime", when(service.update_time)),
        ("Endpoint", service.endpoint),
        ("AccessToken", service.token or service.access_token),
        ("TotalInstance", service.total_instance),
        ("RunningInstance", service.running_instance),
        ("PendingInstance", service.pending_instance),
        ("WantedInstance", service.wanted_instance),
        ("CPU", service.cpu),
        ("Memory", f"{service.memory} MiB"),
        ("GPU", service.gpu),
        ("CurrentVersion", service.current_version),
        ("LatestVersion", service.latest_version),
        ("Generation", f"{service.generation} (observed {service.observed_generation})"),
        ("Phases", phases(service)),
        ("Sources", "\n".join(f"{s.source} {s.digest}" for s in service.sources)),
        ("Labels", ", ".join(f"{label.label_key}={label.label_value}" for label in service.labels)),
        ("ServiceConfig", _pretty(service.service_config)),
    ]


def _pretty(config: str) -> str:
    try:
        return json.dumps(json.loads(config), indent=2, ensure_ascii=False)
    except ValueError:
        return config
