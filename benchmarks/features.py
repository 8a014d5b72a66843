"""A service's route with every feature on: two tokens of which one is limited, requests a second, requests in flight,
and a canary at 10 %. The limits are never reached: what they cost is measured, not what they refuse.
"""

from __future__ import annotations

from msgspec.structs import replace

from easel_contracts.spec import GatewayPolicy, Mirroring, Split
from easel_router.decide.snapshot import ServicePlan, Token, Upstream
from easel_router.testing import a_plan

TOKEN = "YzA5ZjhkN2U2YjVhNDkzODI3MTYwNWY0ZTNkMmMxYjBhOTg3NjU0Mw=="
"""As long as EAS's own tokens."""
NEVER = 1_000_000


def lean(service: str, port: int) -> ServicePlan:
    """Only what every service has: a token, and a replica at the port of 127.0.0.1."""
    return a_plan(service, port, token=TOKEN)


def shadow(service: str, port: int) -> ServicePlan:
    """A service that gets copies."""
    return a_plan(service, port, token=TOKEN, shadows=("all",))


def features(service: str, port: int, mirroring: Mirroring | None = None) -> ServicePlan:
    """One server that listens on every address is both revisions: 127.0.0.1 is the stable one, 127.0.0.2 the other."""
    other = Token(value=TOKEN[::-1], name="other", rate_limit_qps=NEVER)
    policy = GatewayPolicy(rate_limit_qps=NEVER, concurrency_limit=10_000)
    plan = a_plan(service, port, token=TOKEN, more=(other,), gateway=policy,
                  split=Split(weight_permille=100), mirroring=mirroring)  # fmt: skip
    candidate = Upstream(replica=f"{service}-2-{port}", ip="127.0.0.2", port=port, arm="candidate")
    return replace(plan, upstreams=(*plan.upstreams, candidate))
