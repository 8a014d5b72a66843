"""Builds control: the only place where its adapters are made."""

from __future__ import annotations

from functools import partial
from typing import Any

from easel_contracts.facts import KeyState, state_of
from easel_control.admission import Admission
from easel_control.answers import Answers
from easel_control.api import ServicesApi
from easel_control.audit import OTHERS, AuditApi
from easel_control.canaries import Canaries
from easel_control.canaries_api import CanariesApi
from easel_control.canary_commands import CanaryCommands
from easel_control.canary_groups import GroupCanaries
from easel_control.canary_services import ServiceCanaries
from easel_control.canary_sources import CanarySources
from easel_control.canary_store import CanaryStore
from easel_control.commands import Commands
from easel_control.environment import Environments
from easel_control.expiry import Expiry
from easel_control.group_store import GroupStore
from easel_control.group_tokens import GroupTokens
from easel_control.grouping import Grouping
from easel_control.groups_api import GroupsApi
from easel_control.handlers import Handlers
from easel_control.keys import list_keys
from easel_control.memberships import Memberships
from easel_control.mirrors import MirrorsApi
from easel_control.mutating import Mutations
from easel_control.placement import Placement
from easel_control.releasing import Releases
from easel_control.secrets_api import SecretsApi
from easel_control.settings import Settings
from easel_control.showing import ServiceViews
from easel_control.store import Store
from easel_control.token_owners import Groups, Services, TokenOwner
from easel_control.token_store import Kind, TokenStore
from easel_control.tokens import TokenKeeper
from easel_control.tokens_api import TokensApi
from easel_control.upkeep import Upkeep
from easel_control.uploads import CodeStore
from easel_control.vault import Vault, open_vault
from easel_control.worlds import Worlds
from easel_kit.db import Database
from easel_kit.run import Process
from easel_proto.internal.v1 import control_pb2_grpc
from easel_proto.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    canaries_pb2,
    canaries_pb2_grpc,
    events_pb2,
    groups_pb2,
    groups_pb2_grpc,
    metrics_pb2,
    mirrors_pb2_grpc,
    nodes_pb2,
    replicas_pb2,
    routes_pb2,
    scaling_pb2,
    services_pb2,
    services_pb2_grpc,
    tokens_pb2,
    tokens_pb2_grpc,
)

PROBE = b"easel"
PUBLIC_APIS = {
    api.full_name: owner
    for file, owner in (
        (audit_pb2, "control"), (services_pb2, "control"), (groups_pb2, "control"), (tokens_pb2, "control"),
        (canaries_pb2, "control"),
        (replicas_pb2, "scheduler"), (nodes_pb2, "scheduler"), (scaling_pb2, "autoscaler"), (routes_pb2, "router"),
        (metrics_pb2, "monitor"), (events_pb2, "monitor"),
    )
    for api in file.DESCRIPTOR.services_by_name.values()
} | {"easel.v1.Mirrors": "control", "easel.v1.Comparisons": "router"}  # fmt: skip
"""Every API at the control address and the process that serves it: Envoy sends reflection and health to control."""


async def build(process: Process[Settings]) -> None:
    """Wires rows, facts, APIs and the status loop. Raises WrongMasterKey where the key is not the database's."""
    settings, clock, workspace = process.settings, process.clock, process.settings.workspace
    vault = open_vault(settings.home / "master.key")
    await check_vault(process.db, vault)
    for fact in await list_keys(process.db, clock):  # the keys are control's own rows: no need to wait for their facts
        process.keyring.learn(state_of(fact, KeyState))
    store = Store(process.db, clock)
    worlds = Worlds(store, clock)
    code = CodeStore(settings.home / "code", settings.code_max_mib * 2**20)
    environments = Environments(vault, settings.home / "secrets")
    same_machine = settings.mode == "standalone" and bool(settings.host_id)
    token_store = TokenStore(process.db, vault, clock)
    admission = Admission(vault, environments, store, token_store, code.directory, sees_paths=same_machine)
    mutations = Mutations(process.db, Answers(vault), workspace)
    handlers = Handlers(workspace, store, worlds, admission, process.leases, clock)
    placement = Placement(worlds, process.channel("scheduler"))
    group_store, group_tokens = GroupStore(process.db, clock), GroupTokens(vault)
    memberships = Memberships(group_store, group_tokens, clock)
    views = ServiceViews(admission, memberships, settings.data_url, settings.web_url)
    commands = Commands(
        store, admission, mutations, memberships, placement, clock, views.shown, handlers.reconciler.wake
    )
    releases = Releases(store, admission, commands, placement, worlds, clock)
    canary_store = CanaryStore(process.db)
    services = ServicesApi(
        settings, store, admission, views, commands, releases, canary_store, mutations, code, worlds, clock
    )
    process.serve(services_pb2_grpc.add_ServicesServicer_to_server, services, "easel.v1.Services")
    grouping = Grouping(group_store, store, group_tokens, worlds, mutations, clock, settings.data_url)
    groups = GroupsApi(workspace, grouping, mutations, clock)
    process.serve(groups_pb2_grpc.add_GroupsServicer_to_server, groups, "easel.v1.Groups")
    owners: dict[Kind, TokenOwner[Any]] = {
        "service": Services(store, admission, clock), "group": Groups(group_store, group_tokens, clock),
    }  # fmt: skip
    keeper = TokenKeeper(workspace, token_store, owners, mutations, clock)
    tokens = TokensApi(workspace, keeper, mutations, clock)
    process.serve(tokens_pb2_grpc.add_TokensServicer_to_server, tokens, "easel.v1.Tokens")
    sources = CanarySources(process.channel("monitor"), process.channel("router"))
    canaries = Canaries(
        workspace, canary_store, ServiceCanaries(store, worlds, admission, clock),
        GroupCanaries(group_store, store, worlds, clock), sources, process.leases, clock, handlers.reconciler.wake,
    )  # fmt: skip
    by_hand = CanaryCommands(canary_store, group_store, commands, releases, mutations, clock, canaries.reconciler.wake,
                             handlers.reconciler.wake)  # fmt: skip
    canaries_api = CanariesApi(workspace, canary_store, by_hand, mutations, clock)
    process.serve(canaries_pb2_grpc.add_CanariesServicer_to_server, canaries_api, "easel.v1.Canaries")
    mirrors = MirrorsApi(workspace, store, mutations, clock)
    process.serve(mirrors_pb2_grpc.add_MirrorsServicer_to_server, mirrors, "easel.v1.Mirrors")
    audit = AuditApi(process.db, workspace, {owner: process.channel(owner) for owner in OTHERS}, clock)
    process.serve(audit_pb2_grpc.add_AuditServicer_to_server, audit, "easel.v1.Audit")
    process.describes(PUBLIC_APIS)
    secrets = SecretsApi(
        workspace, store, group_store, token_store, group_tokens, environments, code, admission.token_of,
        admission.registry_login_of, clock,
    )  # fmt: skip
    process.serve(control_pb2_grpc.add_SecretsServicer_to_server, secrets, "easel.internal.v1.Secrets")

    process.subscribe({"replica": handlers.on_replica, "route": handlers.on_route, "scale": handlers.on_scale})
    process.owns("service", store.facts)
    process.owns("group", group_store.facts)
    process.owns("key", partial(list_keys, process.db, clock))
    process.background(handlers.reconciler.run)
    process.background(keeper.sweeper.run)
    process.background(canaries.reconciler.run)
    expiry = Expiry(workspace, store, memberships, process.leases, clock, handlers.reconciler.wake)
    process.background(Upkeep(settings, store, group_store, code, expiry, clock).run)
    process.watch_loop(handlers.reconciler)
    process.watch_loop(keeper.sweeper)
    process.watch_loop(canaries.reconciler)


async def check_vault(database: Database, vault: Vault) -> None:
    """Seals a probe into a new database; opens that of an old one. Raises WrongMasterKey."""
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO vault_probe (sealed) VALUES ($1) ON CONFLICT DO NOTHING", vault.seal("probe", PROBE)
        )
        sealed = await connection.fetchval("SELECT sealed FROM vault_probe")
    vault.open("probe", sealed)
