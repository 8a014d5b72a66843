"""control's APIs, for tests of clients."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from easel_contracts.errors import Conflict, FieldError, InvalidInput
from easel_proto.v1 import audit_pb2, audit_pb2_grpc, services_pb2, services_pb2_grpc
from tests.flow.sdk.state import TOKEN, Platform, abort


class Services(services_pb2_grpc.ServicesServicer):
    """control's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def GetInfo(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.GetInfo", request, context)
        url = f"http://127.0.0.1:{self._p.data_port}"
        return services_pb2.Info(version="9.9", workspace="default", data_url=url, host_id=self._p.host_id)

    def Create(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Create", request, context)
        config = json.loads(request.config)
        wrong = [
            FieldError(path=key, code="UNKNOWN_KEY", message="is no key", hint="did you mean cpu?", line=3, column=7)
            for key in config
            if key not in ("name", "metadata", "storage")
        ]
        if wrong:
            abort(context, InvalidInput("the service.json has errors", tuple(wrong)))
        name = config.get("name") or config["metadata"]["name"]
        service = services_pb2.Service(
            service_name=name, status="Creating", generation=1, observed_generation=1, current_version=1,
            latest_version=1, total_instance=1, token=TOKEN, access_token=TOKEN, service_config=request.config,
            endpoint=f"http://127.0.0.1:{self._p.data_port}/api/predict/{name}",
        )  # fmt: skip
        if not request.dry_run:
            self._p.services[name] = service
        return service

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Get", request, context)
        service = self._p.service(request.name, context)
        path = self._p.path.get(request.name)
        step = path.pop(0) if path else None
        if callable(step):
            step(service)
        elif step is not None:
            service.status = step
            if service.status == "Running":
                service.running_instance = 1
                service.phase_s.update({"fetch": 0.5, "schedule": 0.1})
            if service.status == "Failed":
                service.reason, service.message = "CrashLoop", "the program ended with exit code 1, 3 times"
            if service.status == "TooLarge":
                service.status, service.reason = "Waiting", "TooLarge"
                service.message = "Total 1, Pending 1, Running 0; replica a: no node could take it even when empty"
        return service

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.List", request, context)
        names = sorted(self._p.services)
        start = int(request.page_token or 0)
        token = str(start + 2) if start + 2 < len(names) else ""
        return services_pb2.ListServicesResponse(
            services=[self._p.services[n] for n in names[start : start + 2]], next_page_token=token
        )

    def Update(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Update", request, context)
        return self._rolling(request, context)

    def Delete(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Delete", request, context)
        self._refuse_locked(request, context)
        service = self._moved(request, context, "Deleting")
        del self._p.services[request.name]
        return service

    def Start(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Start", request, context)
        return self._moved(request, context, "Starting")

    def Stop(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Stop", request, context)
        self._refuse_locked(request, context)
        return self._moved(request, context, "Stopping")

    def Restart(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Restart", request, context)
        return self._rolling(request, context)

    def Scale(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Scale", request, context)
        if request.instance == 0:
            abort(
                context,
                InvalidInput("instance 0 is not allowed; 1 to 1000 is", hint="`easel stop ocr`, or autoscaler.min 0"),
            )
        service = self._moved(request, context, "Scaling")
        service.total_instance = request.instance
        return service

    def SwitchRevision(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.SwitchRevision", request, context)
        service = self._rolling(request, context)
        service.current_version = request.revision
        answer = services_pb2.Service(warnings=self._p.warnings)
        answer.MergeFrom(service)
        return answer

    def ChangeRollout(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.ChangeRollout", request, context)
        service = self._p.service(request.name, context)
        if not service.HasField("rollout"):
            abort(context, Conflict("NO_ROLLOUT", f"no rollout of {request.name} is on", "`easel modify` begins one"))
        if request.action == "revert":
            service.current_version = service.rollout.from_revision
            service.ClearField("rollout")
        else:
            service.rollout.state = "paused" if request.action == "pause" else "rolling"
        return self._moved(request, context, "Updating")

    def Clone(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Clone", request, context)
        service = services_pb2.Service()
        service.CopyFrom(self._p.service(request.name, context))
        service.service_name, service.token, service.status = request.new_name, "another-token", "Creating"
        service.endpoint = f"http://127.0.0.1:{self._p.data_port}/api/predict/{request.new_name}"
        self._p.services[request.new_name] = service
        return service

    def Lock(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Lock", request, context)
        service = self._p.service(request.name, context)
        service.safety_lock = request.lock
        return service

    def DiffRevisions(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.DiffRevisions", request, context)
        return services_pb2.DiffRevisionsResponse(differences=self._p.differences)

    def ListRevisions(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.ListRevisions", request, context)
        return services_pb2.ListRevisionsResponse(revisions=self._p.revisions)

    def GetSchema(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.GetSchema", request, context)
        return services_pb2.GetSchemaResponse(json_schema='{"type": "object"}')

    def UploadCode(self, requests: Any, context: Any) -> Any:
        self._p.enter("Services.UploadCode", None, context)
        content = b"".join(request.chunk for request in requests)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._p.uploaded[digest] = content
        return services_pb2.UploadCodeResponse(digest=digest, size_bytes=len(content))

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Explain", request, context)
        self._p.service(request.name, context)
        return self._p.explanation("control")

    def _refuse_locked(self, request: Any, context: Any) -> None:
        lock = self._p.service(request.name, context).safety_lock
        if lock in ("dangerous", "all"):
            abort(
                context, Conflict("LOCKED", f"{request.name} is locked ({lock})", f"`easel lock {request.name} none`")
            )

    def _rolling(self, request: Any, context: Any) -> services_pb2.Service:
        service = self._moved(request, context, "Updating")
        if self._p.rollout is not None:
            service.rollout.CopyFrom(self._p.rollout)
            service.current_version = self._p.rollout.to_revision
        return service

    def _moved(self, request: Any, context: Any, status: str) -> services_pb2.Service:
        service = self._p.service(request.name, context)
        service.generation += 1
        service.observed_generation = service.generation
        service.status = status
        return service


class Audit(audit_pb2_grpc.AuditServicer):
    """control's API for the audit."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Audit.List", request, context)
        record = audit_pb2.AuditRecord(id=7, actor="owner", action="Services.Create", target="service/ocr")
        return audit_pb2.ListAuditResponse(records=[record], incomplete="the monitor does not answer")

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Audit.Explain", request, context)
        return self._p.explanation("control")
