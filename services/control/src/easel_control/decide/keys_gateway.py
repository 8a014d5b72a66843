"""The keys of service.json about the gateway: groups, limits, web applications. None of them belongs to a revision."""

from __future__ import annotations

from easel_control.decide.key import Key

MAX_RATE = 1_000_000
MAX_AT_A_TIME = 1_000_000
MAX_THREADS = 10_000
MAX_QUEUE = 100_000

NAME_SAYS = "3 to 63 characters: lower-case letters, digits and underscore, a letter first"
NAME_PATTERN = r"[a-z][a-z0-9_]{2,62}"
"""Names of services and of groups: both are a part of the same URL."""

_ENABLE = "Absent: true where `limit` is given. true needs `limit`; false: no limit, whatever `limit` says."

GATEWAY = (
    Key(path="metadata.group", kind="string", neutral=("",), pattern=NAME_PATTERN, pattern_says=NAME_SAYS,
        doc="Group that the service belongs to: one endpoint and token for all its members. A group comes with its "
            "first member and goes with its last one. A new member gets none of the group's requests before "
            '`easel release`. Another name moves the service, `""` or null takes it out. Not the name of a service.'),
    Key(path="metadata.enable_webservice", kind="boolean", default=False,
        doc="true: a web application: reached at a host name of its own too, and with a browser's session."),
    Key(path="metadata.rpc.rate_limit", kind="integer", neutral=(0,), minimum=1, maximum=MAX_RATE,
        doc="Requests per second and replica that takes traffic; more are answered 429. Absent or 0: no limit."),
    Key(path="metadata.rpc.worker_threads", kind="integer", minimum=1, maximum=MAX_THREADS,
        doc="Requests that a replica is given at a time; further ones wait at the gateway. Absent: no limit (EAS's "
            "default, 5, is that of its own processors)."),
    Key(path="metadata.rpc.max_queue_size", kind="integer", minimum=0, maximum=MAX_QUEUE,
        doc="Requests that may wait per replica while all its `worker_threads` are busy, 64 where absent; more are "
            "answered 450. Only with `worker_threads`."),
    Key(path="networking", kind="object", doc="How the gateway lets requests through."),
    Key(path="networking.gateway_policy", kind="object", doc="Limits of the whole service, however many replicas."),
    Key(path="networking.gateway_policy.rate_limit", kind="object", doc="Requests per second."),
    Key(path="networking.gateway_policy.rate_limit.enable", kind="boolean", doc=_ENABLE),
    Key(path="networking.gateway_policy.rate_limit.limit", kind="integer", neutral=(0,), minimum=1, maximum=MAX_RATE,
        doc="Requests per second of the whole service; more are answered 429."),
    Key(path="networking.gateway_policy.concurrency_limit", kind="object", doc="Requests at a time."),
    Key(path="networking.gateway_policy.concurrency_limit.enable", kind="boolean", doc=_ENABLE),
    Key(path="networking.gateway_policy.concurrency_limit.limit", kind="integer", neutral=(0,), minimum=1,
        maximum=MAX_AT_A_TIME, doc="Requests of the whole service that are being answered or wait; more are answered "
        "429."),
)  # fmt: skip
