"""`easel_migrate.setup`: who gets which secret, and that a second run changes nothing."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from easel_migrate.setup import VOLUMES, NotPrepared, Settings, prepare


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Volumes as a container engine makes them: empty directories."""
    for name in VOLUMES:
        (tmp_path / name).mkdir()
    return Settings(
        volumes_dir=tmp_path, control_addr="control:7000", scheduler_addr="scheduler:7000",
        autoscaler_addr="autoscaler:7000", router_addr="router:7000", monitor_addr="monitor:7000",
        router_xds_addr="router:7001", router_shadow_addr="router:7002", monitor_sink_addr="monitor:7001",
    )  # fmt: skip


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_each_process_gets_its_own_secrets_only(settings: Settings) -> None:
    """No secret of one process lies in another's volume."""
    prepare(settings)
    found = _files(settings.volumes_dir)

    secrets = {name: text for name, text in found.items() if name.endswith((".nk", ".token", "database.password"))}
    scheduler = {name for name in found if name.startswith("scheduler/")}

    assert scheduler == {
        f"scheduler/keys/{name}" for name in ("nats.nk", "process.token", "peers.json", "database.password")
    }
    assert "agent/keys/database.password" not in found
    outside = {name: text for name, text in secrets.items() if not name.startswith(("setup/", "migrate/"))}
    assert len(set(outside.values())) == len(outside)


def test_everything_is_private(settings: Settings) -> None:
    """Files 0600, directories 0700, but for the way to the replicas' own directories."""
    prepare(settings)
    root = settings.volumes_dir

    files = [path for path in root.rglob("*") if path.is_file()]
    open_ones = {
        str(path.relative_to(root)) for path in root.rglob("*")
        if path.is_dir() and stat.S_IMODE(path.stat().st_mode) != 0o700
    }  # fmt: skip

    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert open_ones == {"agent", "agent/data"}


def test_second_run_keeps_everything(settings: Settings) -> None:
    """Keys are made once; so `up` may run as often as one likes."""
    first = prepare(settings)
    before = _files(settings.volumes_dir)

    again = prepare(settings)

    assert (first[0], again[0]) == ("keys made", "keys kept")
    after = _files(settings.volumes_dir)
    limit = "nats/nats.conf"  # holds how much disk is free
    assert {k: v for k, v in after.items() if k != limit} == {k: v for k, v in before.items() if k != limit}


def test_lost_copy_is_given_again(settings: Settings) -> None:
    """The volumes' copies follow from the setup volume."""
    prepare(settings)
    token = settings.volumes_dir / "router" / "keys" / "process.token"
    before = token.read_bytes()
    token.unlink()

    prepare(settings)

    assert token.read_bytes() == before


def test_envoy_is_told_where_everybody_is(settings: Settings) -> None:
    """Addresses between containers, and its own token."""
    prepare(settings)
    bootstrap = json.loads((settings.volumes_dir / "envoy" / "bootstrap.json").read_text())

    clusters = {
        cluster["name"]: cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        for cluster in bootstrap["static_resources"]["clusters"]
    }

    assert clusters["easel-xds"] == {"socket_address": {"address": "router", "port_value": 7001}}
    assert clusters["easel-scheduler"] == {"socket_address": {"address": "scheduler", "port_value": 7000}}
    assert (settings.volumes_dir / "setup" / "keys" / "envoy.token").read_text() in json.dumps(bootstrap)


def test_missing_volume_is_named(settings: Settings) -> None:
    """A volume that is not mounted must not become a directory that is lost with the container."""
    (settings.volumes_dir / "router").rmdir()

    with pytest.raises(NotPrepared, match="router: No such file"):
        prepare(settings)


def test_changed_configuration_is_said(settings: Settings) -> None:
    """Envoy reads its file at its start only: whoever upgrades must know that it has to start again."""
    prepare(settings)
    bootstrap = settings.volumes_dir / "envoy" / "bootstrap.json"
    bootstrap.write_bytes(bootstrap.read_bytes() + b" ")

    assert "envoy's configuration changed: restart envoy" in prepare(settings)
