"""What each NATS user may publish and hear. Replicas run strangers' code on this machine; this is the wall.

A process publishes only facts of the entities it owns, metrics of the kinds it measures, dead letters of its own
consumer, requests to its own durable consumer, and replies under its own inbox. No process may change a stream.
Never grants `>` to anyone but migrate, which runs once before all.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

OWNED: dict[str, tuple[str, ...]] = {
    "control": ("service", "key", "group"),
    "scheduler": ("replica", "node"),
    "autoscaler": ("scale",),
    "router": ("route", "traffic"),
    "monitor": (),
    "agent": (),
}
"""Process → the entities whose facts it tells (DESIGN §3)."""

MEASURED: dict[str, tuple[str, ...]] = {"monitor": ("service",), "agent": ("replica", "node"), "router": ("hold",)}
"""Process → the kinds of metrics it publishes."""

HEARS_METRICS = ("scheduler", "autoscaler", "router", "monitor")


class Rights(Struct, frozen=True):
    """Subjects a user may publish to and subscribe to; nothing else."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_prefix(user: str) -> str:
    """Where replies to a user go; nobody else may listen there."""
    return f"_INBOX_{user}"


def rights_of(user: str, kind: Literal["process", "migrate", "events"] | None = None) -> Rights:
    """The rights of a NATS user."""
    own_inbox = f"{inbox_prefix(user)}.>"
    if user == "migrate":
        return Rights(("$JS.API.>",), (own_inbox,))
    if user == "events":
        # Reading is by core subscription and by direct get: both see facts and cannot change anything.
        reads = ("$JS.API.DIRECT.GET.FACTS", "$JS.API.DIRECT.GET.FACTS.>", "$JS.API.STREAM.INFO.FACTS")
        return Rights(reads, (own_inbox, "easel.fact.>"))
    publish = [
        *(f"easel.fact.*.{entity}.>" for entity in OWNED[user]),
        *(f"easel.metric.*.{kind}.>" for kind in MEASURED.get(user, ())),
    ]
    if user != "agent":
        publish += _own_consumer(user)
    subscribe = [own_inbox] + (["easel.metric.>"] if user in HEARS_METRICS else [])
    if user == "monitor":
        publish += _reads_streams()
        subscribe += ["easel.fact.>", "easel.dead.>"]
    return Rights(tuple(publish), tuple(subscribe))


def _own_consumer(user: str) -> list[str]:
    return [
        f"$JS.API.CONSUMER.INFO.FACTS.{user}",
        f"$JS.API.CONSUMER.MSG.NEXT.FACTS.{user}",
        f"$JS.ACK.FACTS.{user}.>",
        "$JS.API.STREAM.INFO.FACTS",
        f"easel.dead.*.{user}",
        f"easel.dead.{user}",
        f"easel.dead.{user}.>",
    ]


def _reads_streams() -> list[str]:
    """The monitor serves Events.Watch and `easel events --dead`."""
    return [
        f"$JS.API.{verb}.{stream}{tail}"
        for stream in ("FACTS", "DEAD")
        for verb in ("DIRECT.GET", "STREAM.INFO", "STREAM.MSG.GET")
        for tail in (("", ".>") if verb == "DIRECT.GET" else ("",))
    ]
