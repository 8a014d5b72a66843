"""What the platform answers with: the protobuf messages of easel.v1, under one roof.

They are used as they are, so that a field that the API gains is there at once. `easel_sdk.to_dict(message)` makes
plain data of any of them; `easel_sdk.to_datetime(message.create_time)` a datetime of a time.
"""

from __future__ import annotations

from easel_proto.v1.audit_pb2 import AuditRecord
from easel_proto.v1.canaries_pb2 import Canary, CanaryPlan, TrafficMatch, TrafficSticky
from easel_proto.v1.common_pb2 import Explanation, Why
from easel_proto.v1.events_pb2 import Event, EventsToken, Webhook
from easel_proto.v1.groups_pb2 import Group, GroupMember
from easel_proto.v1.metrics_pb2 import MetricsPoint, MetricsWindow
from easel_proto.v1.mirrors_pb2 import CompareOptions, ComparisonReport, DifferenceExample, FieldDifference, Mirror
from easel_proto.v1.nodes_pb2 import Image, Node
from easel_proto.v1.replicas_pb2 import LogChunk, Replica
from easel_proto.v1.routes_pb2 import Route
from easel_proto.v1.scaling_pb2 import Decision, ScaleTarget, ScalingStatus
from easel_proto.v1.services_pb2 import Difference, Info, Revision, Rollout, Service, SourceDigest
from easel_proto.v1.tokens_pb2 import AccessToken

__all__ = [
    "AccessToken",
    "AuditRecord",
    "Canary",
    "CanaryPlan",
    "CompareOptions",
    "ComparisonReport",
    "Decision",
    "Difference",
    "DifferenceExample",
    "Event",
    "EventsToken",
    "Explanation",
    "FieldDifference",
    "Group",
    "GroupMember",
    "Image",
    "Info",
    "LogChunk",
    "MetricsPoint",
    "MetricsWindow",
    "Mirror",
    "Node",
    "Replica",
    "Revision",
    "Rollout",
    "Route",
    "ScaleTarget",
    "ScalingStatus",
    "Service",
    "SourceDigest",
    "TrafficMatch",
    "TrafficSticky",
    "Webhook",
    "Why",
]
