"""Finding the platform: what wins over what, and what is said when there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from easel_sdk.discovery import discover, home_directory, host_id, parse_server
from easel_sdk.errors import CannotReach, NoAccessKey


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as `easel up` leaves it."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "access-key").write_text("ek_home\n")
    (tmp_path / "config.json").write_text(
        json.dumps({"control_url": "http://127.0.0.1:9081", "data_url": "http://127.0.0.1:9080", "ca_file": ""})
    )
    return tmp_path


def test_a_home_names_address_key_and_data_url(home: Path) -> None:
    """Everything comes from its files."""
    found = discover(home=home, env={})

    assert (found.address, found.tls, found.access_key) == ("127.0.0.1:9081", False, "ek_home")
    assert (found.data_url, found.ca_file) == ("http://127.0.0.1:9080", None)


def test_the_environment_names_a_home(home: Path) -> None:
    """EASEL_HOME."""
    assert discover(env={"EASEL_HOME": str(home)}).access_key == "ek_home"


def test_an_argument_wins_over_the_environment(home: Path) -> None:
    """A home that is named is not overruled by a server of the environment, nor a server by another."""
    env = {"EASEL_SERVER": "other:1", "EASEL_ACCESS_KEY": "ek_env"}

    assert discover(home=home, env=env).address == "127.0.0.1:9081"
    assert discover("mine:2", env=env).address == "mine:2"
    assert discover(env=env).address == "other:1"
    assert discover("mine:2", "ek_arg", env=env).access_key == "ek_arg"


def test_no_platform_says_what_was_tried(tmp_path: Path) -> None:
    """And how to start one there."""
    with pytest.raises(CannotReach) as found:
        discover(home=tmp_path / "none", env={})

    assert found.value.message == f"no platform at {tmp_path}/none: run `easel up --home {tmp_path}/none`"


def test_the_default_home_is_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~/.easel needs no --home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CannotReach) as found:
        discover(env={})

    assert found.value.message == "no platform at ~/.easel: run `easel up`"


def test_a_server_without_a_key_is_refused(tmp_path: Path) -> None:
    """It is said how to pass one."""
    with pytest.raises(NoAccessKey) as found:
        discover("host:1", env={"EASEL_HOME": str(tmp_path)})

    assert "--access-key" in found.value.hint


def test_broken_files_are_told(home: Path) -> None:
    """A config that is no JSON, a key that is not there."""
    (home / "keys" / "access-key").unlink()
    with pytest.raises(NoAccessKey, match="cannot read the access key"):
        discover(home=home, env={})
    (home / "config.json").write_text("{")
    with pytest.raises(CannotReach, match="cannot read"):
        discover(home=home, env={})


@pytest.mark.parametrize(
    ("server", "address", "tls"),
    [
        ("host", "host:8081", False),
        ("host:1", "host:1", False),
        ("http://host:1", "host:1", False),
        ("http://host:1/", "host:1", False),
        ("https://host", "host:443", True),
        ("https://[::1]:4", "[::1]:4", True),
        ("unix:/run/x.sock", "unix:/run/x.sock", False),
    ],
)
def test_forms_of_a_server(server: str, address: str, tls: bool) -> None:
    """What people write."""
    assert parse_server(server) == (address, tls)


@pytest.mark.parametrize("server", ["", "ftp://host", "host:port", "http://host/path", "host:99999"])
def test_what_is_no_server(server: str) -> None:
    """Refused with the forms that are."""
    with pytest.raises(CannotReach, match="not an address"):
        parse_server(server)


def test_loopback_is_recognised(home: Path) -> None:
    """Proxies of the environment are for other machines."""
    assert discover(home=home, env={}).is_loopback
    assert not discover("example.org:1", "k", env={}).is_loopback


def test_home_and_host() -> None:
    """Absolute; and the same host twice."""
    assert home_directory("x", {}).is_absolute()
    assert host_id() == host_id()
    assert len(host_id()) == 32
