"""Settings: environment over file, the process's own spelling first, all errors at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Struct

from easel_kit.settings import ProcessSettings, SettingsError, load


class Sample(Struct, frozen=True, kw_only=True):
    port: int
    ratio: float = 0.5
    home: Path = Path()
    name: str = ""


def test_the_processs_own_spelling_wins() -> None:
    """EASEL_ROUTER_PORT stands before EASEL_PORT for the router."""
    env = {"EASEL_PORT": "1", "EASEL_ROUTER_PORT": "2"}

    assert load(Sample, "router", env=env).port == 2
    assert load(Sample, "queue", env=env).port == 1


def test_every_error_is_told_at_once() -> None:
    """A missing and two wrong values are named together, with what is expected."""
    with pytest.raises(SettingsError) as raised:
        load(Sample, env={"EASEL_RATIO": "much"})

    assert len(raised.value.problems) == 2
    assert "EASEL_PORT is missing (int)" in raised.value.problems[0]
    assert "EASEL_RATIO='much'" in raised.value.problems[1]


def test_the_file_is_asked_last(tmp_path: Path) -> None:
    """The TOML file gives what the environment does not; a table of the process wins over the top level."""
    file = tmp_path / "easel.toml"
    file.write_text('port = 1\nname = "all"\n[router]\nport = 2\n')

    found = load(Sample, "router", env={"EASEL_HOME": "/x"}, file=file)

    assert (found.port, found.name, found.home) == (2, "all", Path("/x"))


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """A file that is not TOML raises with its path."""
    file = tmp_path / "easel.toml"
    file.write_text("port = = 1")

    with pytest.raises(SettingsError, match=r"easel\.toml"):
        load(Sample, env={}, file=file)


def test_addresses_of_processes() -> None:
    """A missing address is an error that names its variable."""
    settings = load(ProcessSettings, env={"EASEL_HOME": "/x", "EASEL_NATS_URL": "n", "EASEL_CONTROL_ADDR": "unix:/c"})

    assert settings.addr("control") == "unix:/c"
    with pytest.raises(SettingsError, match="EASEL_MONITOR_ADDR"):
        settings.addr("monitor")
