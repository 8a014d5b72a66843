"""Sync methods of every API. Written by tools/generate_sync_face.py from the async classes; do not edit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from easel_proto.v1 import canaries_pb2 as canaries_messages
from easel_proto.v1 import events_pb2 as events_messages
from easel_proto.v1 import groups_pb2 as groups_messages
from easel_proto.v1 import metrics_pb2, mirrors_pb2, nodes_pb2, routes_pb2, scaling_pb2
from easel_proto.v1 import mirrors_pb2 as mirrors_messages
from easel_proto.v1 import replicas_pb2 as replicas_messages
from easel_proto.v1 import services_pb2 as services_messages
from easel_proto.v1 import tokens_pb2 as tokens_messages
from easel_proto.v1.common_pb2 import Explanation
from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Service
from easel_sdk import canaries, client, comparisons, events, groups, mirrors, observing, replicas, services, tokens
from easel_sdk.canaries import CanaryAction
from easel_sdk.errors import Unavailable
from easel_sdk.explaining import PartExplanation
from easel_sdk.groups import TrafficMode, TrafficState
from easel_sdk.observing import AuditRecords
from easel_sdk.replacing import Replacement
from easel_sdk.services import RolloutAction, SafetyLock
from easel_sdk.spec_file import SpecSource
from easel_sdk.waiting import Progress, Wanted

if TYPE_CHECKING:
    from easel_sdk.predicting import Body, Prediction

R = TypeVar("R")


class Runner(Protocol):
    """Runs async work from sync code."""

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """The result."""

    def iterate(self, work: AsyncIterator[R]) -> Iterator[R]:
        """The items as they come."""


class ServicesFace:
    """Calls to `easel.v1.Services`. Methods raise the errors of easel_sdk.errors."""

    def __init__(self, api: services.ServicesApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def info(self) -> services_messages.Info:
        """What the platform is and where its data listener answers."""
        return self._runner.run(self._api.info())

    def create(
        self, spec: SpecSource, *, dry_run: bool = False, idempotency_key: str | None = None
    ) -> services_messages.Service:
        """Deploys a service.json: a path of one, its text, or the parsed document.

        Local paths in it are used in place where the platform sees this machine's files, else packed and uploaded.
        Returns when the platform has it on disk; `wait` says when it serves. `dry_run` only admits it.
        """
        return self._runner.run(self._api.create(spec, dry_run=dry_run, idempotency_key=idempotency_key))

    def update(
        self,
        name: str,
        spec: SpecSource,
        *,
        replace: bool = False,
        dry_run: bool = False,
        allow_interruption: bool = False,
        idempotency_key: str | None = None,
    ) -> services_messages.Service:
        """Changes a service: `spec` holds the keys to change, or with `replace` everything.

        A change of `metadata.instance` alone is a scale; a change of what runs is a new revision, which takes over by
        a rollout. `allow_interruption`: with no room for a new replica beside the old ones, they make room; without it
        such a change is refused.
        """
        return self._runner.run(
            self._api.update(
                name,
                spec,
                replace=replace,
                dry_run=dry_run,
                allow_interruption=allow_interruption,
                idempotency_key=idempotency_key,
            )
        )

    def get(self, name: str) -> services_messages.Service:
        """The service as it is now. Raises NotFound."""
        return self._runner.run(self._api.get(name))

    def list(self) -> list[services_messages.Service]:
        """Every service of the workspace."""
        return self._runner.run(self._api.list())

    def delete(self, name: str, *, idempotency_key: str | None = None) -> services_messages.Service:
        """Ends a service for good; its replicas finish what they are at."""
        return self._runner.run(self._api.delete(name, idempotency_key=idempotency_key))

    def start(self, name: str, *, idempotency_key: str | None = None) -> services_messages.Service:
        """Starts a stopped service."""
        return self._runner.run(self._api.start(name, idempotency_key=idempotency_key))

    def stop(self, name: str, *, idempotency_key: str | None = None) -> services_messages.Service:
        """Stops every replica; the service stays known."""
        return self._runner.run(self._api.stop(name, idempotency_key=idempotency_key))

    def restart(
        self, name: str, *, allow_interruption: bool = False, idempotency_key: str | None = None
    ) -> services_messages.Service:
        """Replaces every replica by a rollout, new ones first. `allow_interruption` as for `update`."""
        return self._runner.run(
            self._api.restart(name, allow_interruption=allow_interruption, idempotency_key=idempotency_key)
        )

    def scale(self, name: str, instance: int, *, idempotency_key: str | None = None) -> services_messages.Service:
        """Sets how many replicas run where no autoscaler decides."""
        return self._runner.run(self._api.scale(name, instance, idempotency_key=idempotency_key))

    def switch_revision(
        self, name: str, revision: int, *, allow_interruption: bool = False, idempotency_key: str | None = None
    ) -> services_messages.Service:
        """Back (or on) to another revision: at once where its replicas are still up, else by a rollout.

        `warnings` of what comes back names the sources that may have changed since the revision was made.
        """
        return self._runner.run(
            self._api.switch_revision(
                name, revision, allow_interruption=allow_interruption, idempotency_key=idempotency_key
            )
        )

    def change_rollout(
        self, name: str, action: RolloutAction, *, idempotency_key: str | None = None
    ) -> services_messages.Service:
        """Pauses, resumes or reverts the rollout that is on; `Service.rollout` shows it."""
        return self._runner.run(self._api.change_rollout(name, action, idempotency_key=idempotency_key))

    def clone(
        self, name: str, new_name: str, changes: SpecSource | None = None, *, idempotency_key: str | None = None
    ) -> services_messages.Service:
        """A new service with the configuration and environment of this one and a token of its own.

        `changes`: keys of a service.json that are laid over the configuration.
        """
        return self._runner.run(self._api.clone(name, new_name, changes, idempotency_key=idempotency_key))

    def lock(self, name: str, lock: SafetyLock, *, idempotency_key: str | None = None) -> services_messages.Service:
        """Protects a service: "dangerous" refuses stop and delete, "all" every change, "none" nothing."""
        return self._runner.run(self._api.lock(name, lock, idempotency_key=idempotency_key))

    def set_autoscaler(
        self, name: str, section: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> services_messages.Service:
        """Lays a section `autoscaler` (`min`, `max`, `strategies`, `behavior`) over the one there is.

        Targets given as a list, `scaleStrategies`, take the place of all there were.
        """
        return self._runner.run(self._api.set_autoscaler(name, section, idempotency_key=idempotency_key))

    def remove_autoscaler(self, name: str, *, idempotency_key: str | None = None) -> services_messages.Service:
        """Leaves the number of replicas to `metadata.instance`; changes nothing where no autoscaler is set."""
        return self._runner.run(self._api.remove_autoscaler(name, idempotency_key=idempotency_key))

    def revisions(self, name: str) -> Sequence[services_messages.Revision]:
        """Every revision, as the platform orders them."""
        return self._runner.run(self._api.revisions(name))

    def diff_revisions(self, name: str, base: int, other: int) -> Sequence[services_messages.Difference]:
        """What differs between two revisions; values of the environment are not shown."""
        return self._runner.run(self._api.diff_revisions(name, base, other))

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of service.json."""
        return self._runner.run(self._api.schema())

    def upload_code(self, directory: str | Path) -> str:
        """Packs and uploads a directory; returns its digest, for `storage[].local.digest`."""
        return self._runner.run(self._api.upload_code(directory))

    def usable_text(self, spec: SpecSource) -> str:
        """A service.json as it is sent: with local paths made usable, packed and uploaded where the platform does not
        see this machine's files. A document without them goes as it is."""
        return self._runner.run(self._api.usable_text(spec))


class GroupsFace:
    """Calls to `easel.v1.Groups`. A service joins a group by `metadata.group` of its service.json."""

    def __init__(self, api: groups.GroupsApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def get(self, name: str) -> groups_messages.Group:
        """The group as it is now, with the part of its requests that each member gets. Raises NotFound."""
        return self._runner.run(self._api.get(name))

    def list(self) -> list[groups_messages.Group]:
        """Every group of the workspace."""
        return self._runner.run(self._api.list())

    def update(
        self,
        name: str,
        *,
        mode: TrafficMode | None = None,
        rate_limit: int | None = None,
        concurrency_limit: int | None = None,
        idempotency_key: str | None = None,
    ) -> groups_messages.Group:
        """How requests are shared, and limits; None: as it is.

        `mode`: "auto" by replicas in traffic, "customized" by weights. `rate_limit`: requests per second of the whole
        group, `concurrency_limit`: requests at a time; 0: no limit. Raises InvalidInput, NotFound.
        """
        return self._runner.run(
            self._api.update(
                name,
                mode=mode,
                rate_limit=rate_limit,
                concurrency_limit=concurrency_limit,
                idempotency_key=idempotency_key,
            )
        )

    def release(
        self,
        service: str,
        *,
        weight: int | None = None,
        state: TrafficState = "grouping",
        idempotency_key: str | None = None,
    ) -> groups_messages.Group:
        """Has a service take part in its group's traffic, or with "standalone" no more; returns the group.

        `weight`: 0 to 1000 beside the other members' weights makes the group "customized"; -1: by its replicas.
        Raises InvalidInput, NotFound; Conflict where the service is in no group, or locked.
        """
        return self._runner.run(self._api.release(service, weight=weight, state=state, idempotency_key=idempotency_key))

    def explain(self, name: str) -> Explanation:
        """Which part of the requests each member gets, and why. Raises NotFound."""
        return self._runner.run(self._api.explain(name))


class ReplicasFace:
    """Calls to `easel.v1.Replicas`."""

    def __init__(self, api: replicas.ReplicasApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def list(self, service: str, *, all: bool = False) -> list[replicas_messages.Replica]:
        """The service's replicas; with `all` also those that have ended, newest first."""
        return self._runner.run(self._api.list(service, all=all))

    def restart(
        self,
        service: str,
        replicas: Sequence[str],
        *,
        soft: bool = False,
        now: bool = False,
        idempotency_key: str | None = None,
    ) -> Sequence[replicas_messages.Replica]:
        """Replaces the named replicas: a successor first where there is room, then the old one drains.

        `now`: they drain at once, without waiting for successors. `soft`: the process of each is started anew in its
        place, one at a time, while no request reaches it. Returns them as they are; `Client.watch_replacement` says
        when it is done.
        """
        return self._runner.run(
            self._api.restart(service, replicas, soft=soft, now=now, idempotency_key=idempotency_key)
        )

    def isolate(
        self, service: str, replica: str, *, isolated: bool = True, idempotency_key: str | None = None
    ) -> replicas_messages.Replica:
        """Takes a replica out of traffic without ending it, and another takes its place; or lets it back."""
        return self._runner.run(self._api.isolate(service, replica, isolated=isolated, idempotency_key=idempotency_key))

    def logs(
        self, service: str, *, replica: str = "", tail_lines: int = 0, follow: bool = False, previous: bool = False
    ) -> Iterator[replicas_messages.LogChunk]:
        """What replicas printed, and with `follow` what they print.

        `tail_lines`: 0 is 200 lines, -1 all that is kept. `previous`: the run before the last restart. The stream
        is not taken up again when it breaks: a log has no position to go on from.
        """
        return self._runner.iterate(
            self._api.logs(service, replica=replica, tail_lines=tail_lines, follow=follow, previous=previous)
        )


class EventsFace:
    """Calls to `easel.v1.Events`."""

    def __init__(self, api: events.EventsApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def watch(
        self,
        *,
        entity: str = "",
        key: str = "",
        from_sequence: int = 0,
        tail: int = 0,
        follow: bool = True,
        dead: bool = False,
        on_gap: Callable[[Unavailable], None] | None = None,
    ) -> Iterator[events_messages.Event]:
        """Events that match; with `follow` those to come too, without end.

        Starts at `from_sequence`, or with the `tail` newest ones. A broken stream is taken up again after the last
        event that came, none twice and none left out; `on_gap` is told each time.
        """
        return self._runner.iterate(
            self._api.watch(
                entity=entity, key=key, from_sequence=from_sequence, tail=tail, follow=follow, dead=dead, on_gap=on_gap
            )
        )

    def create_token(self) -> events_messages.EventsToken:
        """Read-only NATS credentials for the public subjects."""
        return self._runner.run(self._api.create_token())

    def create_webhook(
        self, url: str, *, entity: str = "", key: str = "", idempotency_key: str | None = None
    ) -> events_messages.Webhook:
        """Has matching events posted to `url` as CloudEvents; the answer's `secret` signs them and is shown once."""
        return self._runner.run(self._api.create_webhook(url, entity=entity, key=key, idempotency_key=idempotency_key))

    def list_webhooks(self) -> list[events_messages.Webhook]:
        """Every webhook, without its secret."""
        return self._runner.run(self._api.list_webhooks())

    def delete_webhook(self, id: str) -> None:
        """Ends a webhook."""
        return self._runner.run(self._api.delete_webhook(id))

    def explain(self) -> Explanation:
        """What the streams hold, what was given up, which webhooks are behind."""
        return self._runner.run(self._api.explain())


class NodesFace:
    """Calls to `easel.v1.Nodes`."""

    def __init__(self, api: observing.NodesApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def list(self) -> list[nodes_pb2.Node]:
        """Where replicas can run."""
        return self._runner.run(self._api.list())

    def get(self, node: str) -> nodes_pb2.Node:
        """One node. Raises NotFound."""
        return self._runner.run(self._api.get(node))

    def images(self, *, node: str = "", all: bool = False) -> nodes_pb2.ListImagesResponse:
        """Images that the nodes' engines have; nothing is pulled. `all`: also those without a tag. `silent` names the
        nodes whose images are not known, and why. Raises NotFound for a `node` that is not there."""
        return self._runner.run(self._api.images(node=node, all=all))

    def explain(self, node: str) -> Explanation:
        """Why a node has its state, and who holds what of it. Raises NotFound."""
        return self._runner.run(self._api.explain(node))


class ScalingFace:
    """Calls to `easel.v1.Scaling`."""

    def __init__(self, api: observing.ScalingApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def get(self, name: str) -> scaling_pb2.ScalingStatus:
        """How many replicas the service should have, and what that was decided from."""
        return self._runner.run(self._api.get(name))

    def history(self, name: str, *, limit: int = 50) -> list[scaling_pb2.Decision]:
        """The journal of decisions, newest first."""
        return self._runner.run(self._api.history(name, limit=limit))


class RoutesFace:
    """Calls to `easel.v1.Routes`."""

    def __init__(self, api: observing.RoutesApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def get(self, name: str) -> routes_pb2.Route:
        """What every live Envoy does with the service's path."""
        return self._runner.run(self._api.get(name))


class MetricsFace:
    """Calls to `easel.v1.Metrics`."""

    def __init__(self, api: observing.MetricsApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def get(self, name: str, *, window_s: int = 60) -> metrics_pb2.MetricsWindow:
        """A summary of the last `window_s` seconds (at most 3600) and each of those seconds."""
        return self._runner.run(self._api.get(name, window_s=window_s))

    def watch(self, name: str) -> Iterator[metrics_pb2.MetricsPoint]:
        """Each second as it ends, without end; a broken stream is taken up again."""
        return self._runner.iterate(self._api.watch(name))


class AuditFace:
    """Calls to `easel.v1.Audit`."""

    def __init__(self, api: observing.AuditApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def list(self, *, target: str = "", limit: int = 100) -> AuditRecords:
        """The newest `limit` records of mutations, of one target (`service/ocr`) or all; `incomplete` says what is
        missing in them."""
        return self._runner.run(self._api.list(target=target, limit=limit))

    def explain(self) -> Explanation:
        """How much is recorded, and since when."""
        return self._runner.run(self._api.explain())


class TokensFace:
    """Calls to `easel.v1.Tokens`. `owner` is the name of a service or, with `group`, of a group."""

    def __init__(self, api: tokens.TokensApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def list(self, owner: str, *, group: bool = False) -> list[tokens_messages.AccessToken]:
        """Those that are good now with their values, `default` first. Raises NotFound."""
        return self._runner.run(self._api.list(owner, group=group))

    def create(
        self,
        owner: str,
        name: str,
        *,
        value: str = "",
        expires_in_s: int = 0,
        rate_limit: int = 0,
        group: bool = False,
        idempotency_key: str | None = None,
    ) -> tokens_messages.AccessToken:
        """One more token. Without `value` (8 to 256 printable characters) one is made.

        `expires_in_s`: 0 is never. `rate_limit`: requests per second with this token, 0 is no limit. Raises
        InvalidInput, AlreadyExists, Conflict.
        """
        return self._runner.run(
            self._api.create(
                owner,
                name,
                value=value,
                expires_in_s=expires_in_s,
                rate_limit=rate_limit,
                group=group,
                idempotency_key=idempotency_key,
            )
        )

    def rotate(
        self,
        owner: str,
        name: str = "default",
        *,
        value: str = "",
        overlap_s: int = 3600,
        group: bool = False,
        idempotency_key: str | None = None,
    ) -> tokens_messages.AccessToken:
        """A new value for a token; the one before stays good for `overlap_s`, so that callers can change over.

        0 ends the value before at once. Raises InvalidInput, NotFound, Conflict.
        """
        return self._runner.run(
            self._api.rotate(
                owner, name, value=value, overlap_s=overlap_s, group=group, idempotency_key=idempotency_key
            )
        )

    def delete(
        self, owner: str, name: str, *, group: bool = False, idempotency_key: str | None = None
    ) -> tokens_messages.AccessToken:
        """Ends a token and its older values. `default` cannot be deleted, only rotated. Raises NotFound, Conflict."""
        return self._runner.run(self._api.delete(owner, name, group=group, idempotency_key=idempotency_key))


class MirrorsFace:
    """Calls to `easel.v1.Mirrors`."""

    def __init__(self, api: mirrors.MirrorsApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def get(self, name: str) -> mirrors_messages.Mirror:
        """Who gets copies of a service's requests; `warnings` says what that costs. Raises NotFound where nobody
        does."""
        return self._runner.run(self._api.get(name))

    def set(
        self,
        name: str,
        targets: Sequence[str],
        percent: float,
        *,
        compare: mirrors_messages.CompareOptions | None = None,
        idempotency_key: str | None = None,
    ) -> mirrors_messages.Mirror:
        """Has a share of a service's requests copied to other services, or to `@candidate`, its own new revision.

        Callers never wait for the copies. `percent` 0 keeps the settings, but off. `compare`: answers are compared
        with those of the one target, for which requests are executed again: its `no_side_effects` must be true. Takes
        the place of what was set before. Raises InvalidInput with everything wrong, NotFound, Conflict.
        """
        return self._runner.run(self._api.set(name, targets, percent, compare=compare, idempotency_key=idempotency_key))

    def delete(self, name: str, *, idempotency_key: str | None = None) -> mirrors_messages.Mirror:
        """Ends copying; returns the settings as they were. Raises NotFound where nothing is copied."""
        return self._runner.run(self._api.delete(name, idempotency_key=idempotency_key))


class ComparisonsFace:
    """Calls to `easel.v1.Comparisons`."""

    def __init__(self, api: comparisons.ComparisonsApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def report(self, name: str) -> mirrors_pb2.ComparisonReport:
        """Where a service's answers and those of its mirror's target differ, by field, with `verdict` (`same`,
        `differs`, `not_enough_data`) and the sentence for it. It begins anew with another target, another revision of
        either side or other options. Raises NotFound."""
        return self._runner.run(self._api.report(name))

    def reset(self, name: str) -> mirrors_pb2.ComparisonReport:
        """Forgets what was compared; returns the report that begins. Raises NotFound."""
        return self._runner.run(self._api.reset(name))


class CanariesFace:
    """Calls to `easel.v1.Canaries`. `config` makes the text to send of a service.json, as for an update."""

    def __init__(self, api: canaries.CanariesApi, runner: Runner) -> None:
        self._api = api
        self._runner = runner

    def start(
        self,
        name: str,
        spec: SpecSource | None = None,
        *,
        plan: canaries_messages.CanaryPlan | None = None,
        revision: int = 0,
        candidate: str = "",
        replace: bool = False,
        allow_interruption: bool = False,
        idempotency_key: str | None = None,
    ) -> canaries_messages.Canary:
        """Begins a canary of a service or a group.

        Of a service, with one of: `spec`, the keys to change (with `replace` everything), which make the new revision;
        `revision`, one there has been; neither, for the rollout that is on. Of a group: `candidate`, the member that
        is to take over. `plan` says how; without it the defaults of the platform hold. Raises InvalidInput, NotFound,
        Conflict; Refused where a new replica finds no room.
        """
        return self._runner.run(
            self._api.start(
                name,
                spec,
                plan=plan,
                revision=revision,
                candidate=candidate,
                replace=replace,
                allow_interruption=allow_interruption,
                idempotency_key=idempotency_key,
            )
        )

    def get(self, name: str) -> canaries_messages.Canary:
        """The canary of a service or group that is on, else its last one; or the one with this id. Raises NotFound."""
        return self._runner.run(self._api.get(name))

    def list(self, name: str = "") -> list[canaries_messages.Canary]:
        """Those that are on, then past ones, newest first."""
        return self._runner.run(self._api.list(name))

    def watch(self, name: str) -> Iterator[canaries_messages.Canary]:
        """The canary now and whenever it changed, about once a second, until it has ended."""
        return self._runner.iterate(self._api.watch(name))

    def change(
        self, name: str, action: CanaryAction, *, idempotency_key: str | None = None
    ) -> canaries_messages.Canary:
        """promote: to the candidate at once · pause · resume · abort: back to what was stable · step: the next weight,
        by hand. Raises NotFound, Conflict."""
        return self._runner.run(self._api.change(name, action, idempotency_key=idempotency_key))


class ClientFace:
    """Every API of a platform, sync."""

    def __init__(self, api: client.Client, runner: Runner) -> None:
        self._client = api
        self._runner = runner
        self.services = ServicesFace(api.services, runner)
        self.groups = GroupsFace(api.groups, runner)
        self.replicas = ReplicasFace(api.replicas, runner)
        self.events = EventsFace(api.events, runner)
        self.nodes = NodesFace(api.nodes, runner)
        self.scaling = ScalingFace(api.scaling, runner)
        self.routes = RoutesFace(api.routes, runner)
        self.metrics = MetricsFace(api.metrics, runner)
        self.audit = AuditFace(api.audit, runner)
        self.tokens = TokensFace(api.tokens, runner)
        self.mirrors = MirrorsFace(api.mirrors, runner)
        self.comparisons = ComparisonsFace(api.comparisons, runner)
        self.canaries = CanariesFace(api.canaries, runner)

    def wait(
        self,
        service: str | Service,
        until: Wanted = "running",
        *,
        generation: int = 0,
        timeout_s: float | None = None,
        over_pauses: bool = False,
    ) -> Service | None:
        """Returns the service once it is `until` ("running", "stopped", "deleted": then None).

        `service`: what the change returned, so that its own effect is waited for: a revision that is reverted is a
        failure then, though the service runs on. Or a name, with the change's `generation` where there was one.
        `over_pauses`: a rollout that stays paused until somebody acts is waited for, too. Raises ServiceFailed or
        TimedOut.
        """
        return self._runner.run(
            self._client.wait(service, until, generation=generation, timeout_s=timeout_s, over_pauses=over_pauses)
        )

    def watch_progress(
        self,
        service: str | Service,
        until: Wanted = "running",
        *,
        generation: int = 0,
        timeout_s: float | None = None,
        over_pauses: bool = False,
    ) -> Iterator[Progress]:
        """Like `wait`, with every look on the way."""
        return self._runner.iterate(
            self._client.watch_progress(
                service, until, generation=generation, timeout_s=timeout_s, over_pauses=over_pauses
            )
        )

    def watch_replacement(
        self, service: str, before: Sequence[Replica], *, soft: bool = False, timeout_s: float | None = None
    ) -> Iterator[Replacement]:
        """Every look until the replicas of `before` (as `replicas.list` had them before `replicas.restart`) are
        replaced, or with `soft` restarted in their place. Raises ServiceFailed or TimedOut."""
        return self._runner.iterate(self._client.watch_replacement(service, before, soft=soft, timeout_s=timeout_s))

    def explain(self, name: str) -> list[PartExplanation]:
        """Why a service or a group is as it is: what each part of the platform says, those that do not answer named.

        Of a group only control and the router know. Raises NotFound."""
        return self._runner.run(self._client.explain(name))

    def web_link(self, name: str, *, ttl_s: float = 3600.0, path: str = "/") -> str:
        """A URL that opens a web application in a browser, for `ttl_s` seconds (30 days at most), at `path`.

        The browser's session that it begins lasts 12 hours; rotating the service's token ends both. Raises NotFound,
        and InvalidInput where the service is no web application.
        """
        return self._runner.run(self._client.web_link(name, ttl_s=ttl_s, path=path))

    def predict(
        self,
        name: str,
        body: Body = None,
        *,
        path: str = "",
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Prediction:
        """Calls a service, or a group, with its token and returns the whole answer.

        `body`: bytes or text as they are, a mapping or list as JSON. Raises PredictFailed on any status from 400.
        """
        return self._runner.run(
            self._client.predict(name, body, path=path, method=method, headers=headers, timeout_s=timeout_s)
        )

    def predict_stream(
        self,
        name: str,
        body: Body = None,
        *,
        path: str = "",
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        on_start: Callable[[Prediction], None] | None = None,
    ) -> Iterator[bytes]:
        """Like `predict`, but the answer's body piece by piece as it comes (SSE, long answers).

        `on_start` is told status and headers before the first piece; the body is empty there.
        """
        return self._runner.iterate(
            self._client.predict_stream(
                name, body, path=path, method=method, headers=headers, timeout_s=timeout_s, on_start=on_start
            )
        )
