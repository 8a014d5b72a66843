"""Plans of services and groups, in a line each."""

from __future__ import annotations

from typing import Any

from easel_contracts.facts import GroupMember, GroupState
from easel_contracts.spec import GatewayPolicy, Mirroring, Split, Traffic
from easel_router.decide import groups
from easel_router.decide.arms import realised
from easel_router.decide.groups import GroupPlan
from easel_router.decide.limits import shares
from easel_router.decide.mirrors import Shadow
from easel_router.decide.snapshot import Hold, ServicePlan, Token, TokenSet, Upstream

_UNLIMITED = GatewayPolicy()


def a_plan(
    service: str,
    *ports: int,
    token: str = "tok",
    more: tuple[Token, ...] = (),
    draining: tuple[int, ...] = (),
    hold: Hold | None = None,
    keep_alive_s: float | None = None,
    grpc: bool = False,
    gateway: GatewayPolicy = _UNLIMITED,
    envoys: int = 1,
    candidates: tuple[int, ...] = (),
    split: Split | None = None,
    mirroring: Mirroring | None = None,
    shadows: tuple[Shadow, ...] = (),
    **traffic: Any,
) -> ServicePlan:
    """A plan whose replicas listen at `ports` of 127.0.0.1, and those of a candidate at `candidates`; `more` are tokens
    beside the default."""
    upstreams = sorted(
        Upstream(
            replica=f"{service}-1-{port}",
            ip="127.0.0.1",
            port=port,
            draining=port in draining,
            arm="candidate" if port in candidates else "stable",
        )
        for port in (*ports, *candidates)
    )
    return ServicePlan(
        workspace="default",
        service=service,
        uid=service,
        generation=1,
        tokens=(Token(value=token), *more),
        token_version=1,
        traffic=Traffic(grpc=grpc, **traffic),
        upstreams=tuple(upstreams),
        without_replica=f"service {service} has no replica that can answer now",
        hold=hold,
        awake=bool(upstreams) or hold is not None,
        keep_alive_s=keep_alive_s,
        web=gateway.web,
        grpc=grpc,
        mirroring=mirroring,
        shadows=shadows,
        limits=shares(
            gateway,
            replicas=sum(not u.draining for u in upstreams),
            envoys=envoys,
            tokens=(Token(value=token), *more),
        ),
        split=realised(split, {u.arm for u in upstreams if not u.draining}),
    )


def a_group(
    name: str,
    *plans: ServicePlan,
    token: str = "group-tok",
    weights: dict[str, int] | None = None,
    standalone: tuple[str, ...] = (),
    split: Split | None = None,
    candidate: str = "",
    more: tuple[Token, ...] = (),
    gateway: GatewayPolicy = _UNLIMITED,
    envoys: int = 1,
) -> GroupPlan:
    """A group of the services that are planned so; with `weights` a customized one."""
    members = tuple(
        GroupMember(
            service=p.service,
            state="standalone" if p.service in standalone else "grouping",
            weight=(weights or {}).get(p.service, -1),
        )
        for p in plans
    )
    state = GroupState(
        uid=name, name=name, generation=1, mode="customized" if weights else "auto", members=members, split=split,
        candidate=candidate, gateway=gateway,
    )  # fmt: skip
    tokens = TokenSet(tokens=(Token(value=token), *more), version=1)
    return groups.plan(state, tokens, {p.service: p for p in plans}, "default", envoys)
