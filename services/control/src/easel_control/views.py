"""Rows → what the API shows. The token is shown to holders of an access key; environment values to nobody."""

from __future__ import annotations

from easel_control.model import RevisionRow, ServiceRow
from easel_proto.v1 import services_pb2


def service_view(row: ServiceRow, token: str, data_url: str) -> services_pb2.Service:
    """The service with EAS's field names."""
    endpoint = f"{data_url.rstrip('/')}/api/predict/{row.name}"
    spec = row.revision
    view = services_pb2.Service(
        service_name=row.name, service_id=row.uid, service_uid=row.uid, workspace_id=row.workspace_id,
        namespace=row.workspace, region="local", status=row.status, reason=row.reason, message=row.message,
        cpu=spec.resources.cpu, memory=spec.resources.memory_mib, gpu=spec.resources.gpu,
        total_instance=row.total, running_instance=row.running, pending_instance=max(row.total - row.running, 0),
        current_version=spec.number, latest_version=spec.number, intranet_endpoint=endpoint,
        internet_endpoint=endpoint, service_config=row.config_shown, access_token=token, role="Standard",
        source="API", safety_lock="none", traffic_state="standalone",
        labels=[services_pb2.Label(label_key=k, label_value=v) for k, v in sorted(row.labels.items())],
        endpoint=endpoint, token=token, revision=spec.number, generation=row.generation,
        observed_generation=row.observed_generation, wanted_instance=row.total, phase_s=row.phase_s,
        sources=_sources(row),
    )  # fmt: skip
    view.create_time.FromDatetime(row.created_at)
    view.update_time.FromDatetime(row.updated_at)
    return view


def revision_view(row: RevisionRow) -> services_pb2.Revision:
    """A revision."""
    view = services_pb2.Revision(
        number=row.number, state=row.state, service_config=row.config_shown,
        sources=[services_pb2.SourceDigest(source=s.source, digest=s.digest) for s in row.spec.sources],
    )  # fmt: skip
    view.create_time.FromDatetime(row.created_at)
    return view


def _sources(row: ServiceRow) -> list[services_pb2.SourceDigest]:
    return [services_pb2.SourceDigest(source=s.source, digest=s.digest) for s in row.revision.sources]
