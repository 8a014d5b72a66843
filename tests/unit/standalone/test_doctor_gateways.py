"""What `easel doctor` says of several gateways."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from easel_standalone import doctor, ports
from easel_standalone.home import Config, Home


@pytest.mark.parametrize(
    ("gateways", "moves", "level", "says"),
    [
        (1, False, "ok", "one that dies costs all connections"),
        (2, True, "ok", "about 1 in 2 connections"),
        (2, False, "warning", "net.ipv4.tcp_migrate_req=1"),
        (3, True, "warning", "`easel up --gateways 2`"),
    ],
)
def test_more_than_one_wants_a_kernel_that_moves_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gateways: int, moves: bool, level: str, says: str
) -> None:
    """And not more of them than there are CPUs."""
    monkeypatch.setattr(ports, "kernel_moves_connections", lambda: moves)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    home = Home(tmp_path)
    home.config_file.write_bytes(msgspec.json.encode(Config(created=datetime.now(UTC), gateways=gateways)))

    [found] = doctor._gateways(home)

    assert (found.level, says in f"{found.message}; {found.hint}") == (level, True)
