"""The keys of service.json that Easel carries out, one entry each. Order is the order of the documentation.

Never put a key here that something does not really act on; what is documented for EAS and not built yet stands in
`later.py` and is refused by name.
"""

from __future__ import annotations

from easel_control.decide.key import DAY_S, Key, Node, tree_of
from easel_control.decide.keys_containers import CONTAINERS
from easel_control.decide.keys_gateway import GATEWAY, NAME_PATTERN, NAME_SAYS
from easel_control.decide.keys_storage import STORAGE
from easel_control.decide.later import LATER

METADATA = (
    Key(path="metadata", kind="object", doc="Name, size and behaviour of the service."),
    Key(path="metadata.name", kind="string", required=True, pattern=NAME_PATTERN, pattern_says=NAME_SAYS,
        also=("name",), doc="Name of the service, unique in its workspace; part of its URL."),
    Key(path="metadata.instance", kind="integer", default=1, minimum=0, maximum=1000,
        doc="Replicas wanted, where no autoscaler decides. Changing only this is a scale, not a new revision. "
            "0 only where `autoscaler.min` is 0; otherwise `easel stop` is the way to none."),
    Key(path="metadata.workspace_id", kind="string", also=("workspace_id",), max_length=64,
        doc="EAS's workspace id: kept and shown; Easel has the one workspace `default`."),
    Key(path="metadata.cpu", kind="number", default=1, above=0, maximum=1024, doc="Cores per replica."),
    Key(path="metadata.memory", kind="integer", default=1024, minimum=16, maximum=16_777_216,
        doc="Memory per replica in MiB."),
    Key(path="metadata.gpu", kind="integer", default=0, neutral=(0,), minimum=0, maximum=64,
        doc="GPUs per replica, its own while it lives. Only with an image: they are given to `containers[0]`."),
    Key(path="metadata.shm_size", kind="number", above=0, maximum=4096,
        doc="Size of /dev/shm in GiB, which counts as memory where it is filled. Only with an image; absent: the "
            "engine's default, 64 MiB."),
    Key(path="metadata.enable_grpc", kind="boolean", default=False,
        doc="true: gRPC calls go to the replicas, over HTTP/2; other requests go over HTTP/1.1 as ever. "
            "A call names its service in metadata (`x-easel-service: NAME`) or its path (`/api/predict/NAME/...`)."),
    Key(path="metadata.rpc", kind="object", doc="How requests are treated."),
    Key(path="metadata.rpc.keepalive", kind="integer", default=600_000, minimum=1, maximum=DAY_S * 1000,
        doc="Longest time of a request to the first byte of its answer, in milliseconds; then 408."),
    Key(path="metadata.rpc.enable_sigterm", kind="boolean", default=False,
        doc="true: a replica that is to end gets SIGTERM at once and shuts down itself. "
            "false: it loses traffic, and is killed when its requests are done or the grace period is over."),
    Key(path="metadata.eas", kind="object", doc="Ends of replicas."),
    Key(path="metadata.eas.termination_grace_period", kind="number", default=30, minimum=0, maximum=DAY_S,
        doc="Seconds a replica that is to end keeps for running requests."),
    Key(path="metadata.rolling_strategy", kind="object",
        doc="How replicas of a new revision take the place of those before. A change of it is no new revision."),
    Key(path="metadata.rolling_strategy.max_surge", kind="amount", default="2%", minimum=0, maximum=1000,
        doc="Replicas above the number wanted while a rollout is on; a percentage is rounded up to at least one."),
    Key(path="metadata.rolling_strategy.max_unavailable", kind="amount", default=0, minimum=0, maximum=1000,
        doc="Replicas that may be missing meanwhile; a percentage is rounded down. Not 0 together with `max_surge`."),
)  # fmt: skip

SCALING = (
    Key(path="autoscaler", kind="object", doc="Lets the number of replicas follow the load."),
    Key(path="autoscaler.min", kind="integer", required=True, minimum=0, maximum=1000,
        doc="Fewest replicas. 0: without requests no replica is kept, see `behavior.onZero`."),
    Key(path="autoscaler.max", kind="integer", required=True, minimum=1, maximum=1000,
        doc="Most replicas; not less than `min`."),
    Key(path="autoscaler.strategies", kind="object", doc="Targets per replica; at least one is needed."),
    Key(path="autoscaler.strategies.qps", kind="number", above=0, maximum=1e9,
        doc="Requests per second and replica."),
    Key(path="autoscaler.strategies.concurrency", kind="number", above=0, maximum=1e9,
        doc="Requests being answered at a time, per replica."),
    Key(path="autoscaler.scaleStrategies", kind="list", max_length=16,
        doc="The same as a list, as in EAS's API; instead of `strategies`."),
    Key(path="autoscaler.scaleStrategies[]", kind="object"),
    Key(path="autoscaler.scaleStrategies[].metricName", kind="string", required=True, doc="`qps` or `concurrency`."),
    Key(path="autoscaler.scaleStrategies[].threshold", kind="number", required=True, above=0, maximum=1e9,
        doc="Target per replica."),
    Key(path="autoscaler.behavior", kind="object", doc="How fast."),
    Key(path="autoscaler.behavior.scaleUp", kind="object", doc="Growing."),
    Key(path="autoscaler.behavior.scaleUp.stabilizationWindowSeconds", kind="number", default=0, minimum=0,
        maximum=DAY_S, doc="Seconds the load must have been high before replicas are added."),
    Key(path="autoscaler.behavior.scaleDown", kind="object", doc="Shrinking."),
    Key(path="autoscaler.behavior.scaleDown.stabilizationWindowSeconds", kind="number", default=300, minimum=0,
        maximum=DAY_S, doc="Seconds the load must have been low before replicas are taken away."),
    Key(path="autoscaler.behavior.onZero", kind="object", doc="The way to no replica and back, where `min` is 0."),
    Key(path="autoscaler.behavior.onZero.scaleDownGracePeriodSeconds", kind="number", default=600, minimum=0,
        maximum=30 * DAY_S, doc="Seconds without a request after which no replica is kept."),
    Key(path="autoscaler.behavior.onZero.scaleUpActivationReplicas", kind="integer", default=1, minimum=1,
        maximum=1000, doc="Replicas the first request starts; not more than `max`."),
    Key(path="autoscaler.behavior.onZero.interceptTraffic", kind="boolean", default=True,
        doc="true: requests that come while there is no replica wait for one. "
            "false: they are answered 503 and only start one."),
)  # fmt: skip

ROLLOUT = (
    Key(path="rollout", kind="object",
        doc="Easel's own: how a new revision is brought in, and when it is taken back. A change of it is no new "
            "revision, and counts for a rollout that is on."),
    Key(path="rollout.waves", kind="list", default=(20, 50, 100), min_length=1, max_length=20,
        doc="Percent of the replicas wanted that may be of the new revision, step by step: rising, the last 100."),
    Key(path="rollout.waves[]", kind="integer", minimum=1, maximum=100, doc="A percentage, without the sign."),
    Key(path="rollout.wave_pause_seconds", kind="number", default=0, minimum=0, maximum=7 * DAY_S,
        doc="Seconds a wave must have served before the next begins."),
    Key(path="rollout.stop_after", kind="amount", default=1, minimum=1, maximum=1000,
        doc="So many failed replicas of the new revision pause the rollout; a percentage is of the replicas wanted, "
            "at least one."),
    Key(path="rollout.on_failure", kind="string", default="revert", choices=("revert", "pause"),
        doc="What follows on a rollout that has failed: revert, to the revision before, after "
            "`revert_after_seconds`; pause, until somebody decides."),
    Key(path="rollout.revert_after_seconds", kind="number", default=30, minimum=0, maximum=7 * DAY_S,
        doc="Seconds a failed rollout waits for somebody before it reverts."),
    Key(path="rollout.progress_timeout_seconds", kind="number", default=600, minimum=1, maximum=7 * DAY_S,
        doc="Seconds without one more replica of the new revision serving, after which the rollout has failed. "
            "Waiting for room does not count."),
)  # fmt: skip

OTHER = (
    Key(path="dockerAuth", kind="string", neutral=("",), secret=True, max_length=65_536,
        doc="Login for the registry of the images, those of mounts too: base64 of `user:password`. Kept encrypted and "
            "shown to nobody. It belongs to no revision: a change of it replaces no replica and counts for the next "
            'pull. An update that leaves it out keeps it; `""` takes it away.'),
    Key(path="token", kind="string", secret=True, min_length=8, max_length=256, pattern=r"[\x21-\x7e]+",
        pattern_says="8 to 256 printable ASCII characters without spaces",
        doc="Callers send it as `Authorization`. Absent: one is made at creation, and kept by an update. "
            "Kept encrypted. The gateway passes the header on: the model sees what its caller sent."),
    Key(path="generate_token", kind="boolean", text_too=True,
        doc='Old EAS spelling: true (or "true") makes a token. Every service has a token, so false needs `token`.'),
    Key(path="labels", kind="map", max_length=64, doc="Your own labels: name and value, both text."),
    Key(path="traffic", kind="object", doc="Easel's own: how the gateway treats requests."),
    Key(path="traffic.retry", kind="string", default="pre_send", choices=("safe", "pre_send", "off"),
        doc="safe: any request may run twice and is retried. pre_send: only GET, HEAD, PUT, DELETE and requests with "
            "`Idempotency-Key` are retried after they were sent. off: none is."),
    Key(path="traffic.retry_body_mib", kind="integer", default=1, minimum=0, maximum=64,
        doc="Bodies up to so many MiB are kept for a retry; larger ones are sent once."),
    Key(path="traffic.hold_max_requests", kind="integer", default=4096, minimum=0, maximum=100_000,
        doc="Requests that may wait at a time while no replica is ready; more are answered 503."),
)  # fmt: skip

SUPPORTED = (*METADATA, *CONTAINERS, *STORAGE, *GATEWAY, *SCALING, *ROLLOUT, *OTHER)
KEYS = (*SUPPORTED, *LATER)
TREE: Node = tree_of(KEYS)
MAPS = frozenset(key.path for key in KEYS if key.kind == "map")
BY_PATH = {key.path: key for key in KEYS}
ALIASES: dict[str, str] = {spelling: key.path for key in KEYS for spelling in key.also}
"""Old spelling → path."""
