"""The data directory: rights, lock, short socket paths."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from easel_contracts.errors import Conflict, InvalidInput, Refused
from easel_standalone.home import SOCKET_PATH_MAX, Home
from easel_standalone.keys import Keys


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """Every file below keys/ is 0600 in directories that are 0700."""
    home = Home(tmp_path / "home")
    home.prepare()
    Keys(home).ensure()

    files = [path for path in home.keys.rglob("*") if path.is_file()]

    assert len(files) > 15
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(home.keys.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.run.stat().st_mode) == 0o700


def test_second_holder_is_refused(tmp_path: Path) -> None:
    """One supervisor per home."""
    home = Home(tmp_path)
    with home.held():
        assert Home(tmp_path).is_held()
        with pytest.raises(Conflict, match="already runs"), Home(tmp_path).held():
            pass
    assert not Home(tmp_path).is_held()


def test_long_path_gets_short_sockets(tmp_path: Path) -> None:
    """A unix socket's path has 107 bytes; a deep home still works, in a directory of its own."""
    deep = Home(tmp_path / ("d" * 100))

    assert len(str(deep.socket("autoscaler.health"))) <= SOCKET_PATH_MAX
    assert deep.run != Home(tmp_path / ("e" * 100)).run
    assert Home(Path("/tmp/h")).run == Path("/tmp/h/run")


def test_directory_of_someone_else_is_refused(tmp_path: Path) -> None:
    """A link in the place of a directory could lead secrets elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = tmp_path / "home"
    root.mkdir()
    (root / "keys").symlink_to(elsewhere)

    with pytest.raises(Refused, match="not a directory of this user"):
        Home(root).prepare()


def test_broken_config_is_explained(tmp_path: Path) -> None:
    """The file's name is in the error."""
    (tmp_path / "config.json").write_text("{")

    with pytest.raises(InvalidInput, match=r"config\.json"):
        Home(tmp_path).config()
