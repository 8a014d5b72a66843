"""Which process of a gateway follows which, and the files they leave."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from easel_standalone import envoy
from easel_standalone.decide.gateways import (
    QUIET_CHECKS,
    Process,
    anew,
    base_ids,
    hot_restart,
    may_end,
    successor,
)
from easel_standalone.home import MOST_GATEWAYS, SOCKET_PATH_MAX, Home
from easel_standalone.keys import Keys

IDS = base_ids("/home made then", "envoy")


def first() -> Process:
    return Process(gateway="envoy", number=4, base_id=IDS[0])


def value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def test_base_ids_are_a_homes_own() -> None:
    """The same at each start, others for other gateways and homes, small enough for Envoy's arithmetic."""
    homes = [base_ids(home, name) for home in ("/a", "/b") for name in envoy.names(MOST_GATEWAYS)]
    found = [base_id for ids in homes for base_id in ids]

    assert base_ids("/a", "envoy") == homes[0]
    assert len(set(found)) == len(found)
    assert max(found) * 10 + 9 < 2**31


def test_a_successor_takes_over_and_knows_who_lives() -> None:
    """Same base id, next epoch; it speaks to its predecessor where that one listens."""
    second = successor(first(), 5)
    third = successor(second, 6)

    assert (second.node_id, second.older, second.epoch) == ("envoy.5", ("envoy.4",), 1)
    assert (third.node_id, third.older, third.epoch) == ("envoy.6", ("envoy.5",), 2)
    assert {p.base_id for p in (second, third)} == {IDS[0]}
    assert second.parents_socket == f"_parent_{IDS[0] * 10}"
    assert third.parents_socket == f"_parent_{IDS[0] * 10 + 1}"
    assert successor(successor(third, 7), 8).parents_socket == f"_parent_{IDS[0] * 10}"  # three epochs are told apart


def test_a_process_that_died_begins_without_a_predecessor() -> None:
    """The same name for the router, memory that nobody uses, epochs from the beginning."""
    second = successor(first(), 5)

    again = anew(second, IDS, living=[first()])
    assert (again.node_id, again.epoch, again.older) == ("envoy.5", 0, ("envoy.4",))
    assert again.base_id not in (first().base_id,)
    alone = anew(again, IDS, living=[])
    assert (alone.older, alone.base_id) == ((), IDS[0])
    beside_two = anew(second, IDS, living=[first(), again])
    assert beside_two.base_id not in (first().base_id, again.base_id)


def test_arguments_leave_the_end_of_the_old_process_to_the_supervisor() -> None:
    """Envoy ends it by itself only later; connections are closed long before."""
    arguments = hot_restart(successor(first(), 5), "/run/hot", grace_s=600.0)

    assert (value(arguments, "--base-id"), value(arguments, "--restart-epoch")) == (str(IDS[0]), "1")
    assert int(value(arguments, "--parent-shutdown-time-s")) > 600 > int(value(arguments, "--drain-time-s"))
    assert value(arguments, "--socket-mode") == "600"


def test_a_replaced_process_ends_when_nobody_is_connected_or_its_time_is_over() -> None:
    """One look that finds nobody may come between two requests."""
    assert not may_end(1.0, QUIET_CHECKS - 1, 600.0)
    assert may_end(1.0, QUIET_CHECKS, 600.0)
    assert not may_end(599.9, 0, 600.0)
    assert may_end(600.0, 0, 600.0)


def test_numbers_go_on_after_down_and_up(tmp_path: Path) -> None:
    """The router must not take a new process for an older one; what else earlier processes left is removed."""
    home = Home(tmp_path)
    home.prepare()
    config = home.config()
    assert envoy.next_number(home, "envoy") == 1
    for name in ("envoy.9", "envoy.10", "envoy-1.3", "bootstrap"):
        (home.data("envoy") / f"{name}.json").touch()
    left = [home.socket("envoy.10.admin"), home.run / "hot_parent_1", home.socket("control")]
    for file in left:
        file.touch()

    envoy.clear(home, config)

    assert sorted(file.name for file in home.data("envoy").iterdir()) == ["envoy-1.3.json", "envoy.10.json"]
    assert [envoy.next_number(home, name) for name in envoy.names(3)] == [11, 4, 1]
    assert [file.name for file in left if file.exists()] == ["control.sock"]


def test_names_fit_a_sockets_path(tmp_path: Path) -> None:
    """In the deepest directory that is used as it is, and in the short one that is used otherwise."""
    process = Process(gateway="envoy-7", number=99_999, base_id=2**27 - 1, epoch=1)
    hot = f"{envoy.HOT}_udp{process.parents_socket}"
    for depth in range(1, 100):
        home = Home(tmp_path / ("d" * depth))
        longest = max(len(str(envoy.admin_socket(home, process))), len(str(home.run / hot)))
        assert longest <= SOCKET_PATH_MAX


def test_a_full_disk_does_not_keep_a_gateway_from_being_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of its last life is used; without one there is nothing to start."""
    home = Home(tmp_path)
    home.prepare()
    keys, config = Keys(home), home.config()
    keys.ensure()
    written = envoy.write_bootstrap(home, config, keys, first())

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(envoy, "write_file", full)

    assert envoy.write_bootstrap(home, config, keys, anew(first(), IDS, [])) == written
    with pytest.raises(OSError, match="No space left"):
        envoy.write_bootstrap(home, config, keys, successor(first(), 5))
