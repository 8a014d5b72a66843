"""Rows → what the API shows. The token is shown to holders of an access key; environment values to nobody."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from easel_contracts.facts import GroupMember
from easel_control.decide.groups import Standing
from easel_control.decide.rollout import reverts_at
from easel_control.model import GroupRow, RevisionRow, RolloutRow, ServiceRow
from easel_proto.v1 import groups_pb2, services_pb2


def service_view(
    row: ServiceRow, token: str, data_url: str, member: GroupMember | None, web_url: str = ""
) -> services_pb2.Service:
    """The service with EAS's field names. `member`: what it does in its group; None: it is in none."""
    endpoint = endpoint_of(row.name, data_url)
    spec = row.revision
    view = services_pb2.Service(
        service_name=row.name, service_id=row.uid, service_uid=row.uid, workspace_id=row.workspace_id,
        namespace=row.workspace, region="local", status=row.status, reason=row.reason, message=row.message,
        cpu=spec.resources.cpu, memory=spec.resources.memory_mib, gpu=spec.resources.gpu,
        total_instance=row.total, running_instance=row.running, pending_instance=max(row.total - row.running, 0),
        current_version=spec.number, latest_version=row.latest, intranet_endpoint=endpoint,
        internet_endpoint=endpoint, service_config=row.config_shown, access_token=token, role="Standard",
        source="API", safety_lock=row.lock, service_group=row.group,
        traffic_state="standalone" if member is None else member.state, weight=0 if member is None else member.weight,
        labels=[services_pb2.Label(label_key=k, label_value=v) for k, v in sorted(row.labels.items())],
        endpoint=endpoint, token=token, revision=spec.number, generation=row.generation,
        observed_generation=row.observed_generation, wanted_instance=row.total, phase_s=row.phase_s,
        sources=_sources(row), web_endpoint=web_endpoint_of(row.name, web_url) if row.gateway.web else "",
    )  # fmt: skip
    view.create_time.FromDatetime(row.created_at)
    view.update_time.FromDatetime(row.updated_at)
    if row.rollout is not None:
        view.rollout.CopyFrom(_rollout(row, row.rollout))
    return view


def _rollout(row: ServiceRow, rollout: RolloutRow) -> services_pb2.Rollout:
    """The rollout that is on; while it rolls, the status says what it waits for."""
    waits = row.status == "Updating" and rollout.state == "rolling"
    view = services_pb2.Rollout(
        from_revision=rollout.stable.number, to_revision=row.revision.number, share_percent=rollout.share_percent,
        state=rollout.state, failed=len(rollout.failed),
        reason=rollout.reason or (row.reason if waits else "RollingOut"),
        message=rollout.message or (row.message if waits else ""),
    )  # fmt: skip
    view.began_time.FromDatetime(rollout.began_at)
    if (at := reverts_at(rollout, row.rolling)) is not None:
        view.revert_time.FromDatetime(at)
    return view


def revision_view(row: RevisionRow, *, current: bool) -> services_pb2.Revision:
    """A revision."""
    view = services_pb2.Revision(
        number=row.number, state=row.state, service_config=row.config_shown, current=current,
        sources=[services_pb2.SourceDigest(source=s.source, digest=s.digest) for s in row.spec.sources],
    )  # fmt: skip
    view.create_time.FromDatetime(row.created_at)
    return view


def _sources(row: ServiceRow) -> list[services_pb2.SourceDigest]:
    return [services_pb2.SourceDigest(source=s.source, digest=s.digest) for s in row.revision.sources]


def group_view(row: GroupRow, standings: Iterable[Standing], token: str, data_url: str) -> groups_pb2.Group:
    """The group, with its members as they are now."""
    view = groups_pb2.Group(
        name=row.name, uid=row.uid, traffic_mode=row.mode, endpoint=endpoint_of(row.name, data_url), token=token,
        generation=row.generation, rate_limit=row.gateway.rate_limit_qps,
        concurrency_limit=row.gateway.concurrency_limit,
        members=[
            groups_pb2.GroupMember(
                service=s.member.service, traffic_state=s.member.state, weight=s.member.weight,
                share_percent=round(100 * s.share, 4), running_instance=s.running, status=s.status,
                endpoint=endpoint_of(s.member.service, data_url),
                group_endpoint=endpoint_of(f"{row.name}.{s.member.service}", data_url),
            )
            for s in standings
        ],
    )  # fmt: skip
    view.create_time.FromDatetime(row.created_at)
    view.update_time.FromDatetime(row.updated_at)
    return view


def web_endpoint_of(name: str, web_url: str) -> str:
    """Where a web application is reached by its host name; empty where it has none.

    A host name has no underscore, and none can stand before an address."""
    url = urlsplit(web_url)
    host = url.hostname or ""
    if not host or ":" in host or host.replace(".", "").isdigit():
        return ""
    return f"{url.scheme}://{name.replace('_', '-')}.{url.netloc}/"


def endpoint_of(name: str, data_url: str) -> str:
    """Where a service, a group, or (`GROUP.SERVICE`) a member by way of its group is called."""
    return f"{data_url.rstrip('/')}/api/predict/{name}"
