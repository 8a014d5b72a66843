"""`easel up` where it cannot start: the reason, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import psutil
import pytest

from easel_contracts.errors import Conflict, EaselError, InvalidInput, Unavailable
from easel_kit.testing import free_port
from easel_standalone import api
from easel_standalone.home import Home
from tests.flow.standalone.stores import running


async def test_second_up_says_what_runs(short_path: Path) -> None:
    """Who, where, and what to do; the running platform is not disturbed."""
    async with running(short_path) as stores:
        with stores.home.held():
            async with stores.supervisor.door():
                with pytest.raises(Conflict, match=f"pid {os.getpid()}") as refused:
                    await asyncio.to_thread(api.up_detached, short_path, api.Options())
                found = await asyncio.to_thread(api.status, short_path)

        assert "easel down" in refused.value.hint
        assert {p.name: p.state for p in found.processes} == {
            "supervisor": "running",
            "nats": "running",
            "postgres": "running",
        }


async def test_gateways_are_not_replaced_before_the_platform_is_ready(short_path: Path) -> None:
    """The supervisor's refusal reaches the caller as the error it is."""
    async with running(short_path) as stores:
        with stores.home.held():
            async with stores.supervisor.door():
                with pytest.raises(Conflict, match="the platform is starting") as refused:
                    await asyncio.to_thread(api.replace_gateways, short_path)

    assert (refused.value.code, refused.value.hint) == ("NOT_READY", "`easel status` shows it")


@pytest.mark.parametrize("grace_s", [0.0, -1.0, 90_000.0])
def test_gateways_cannot_be_replaced_like_this(tmp_path: Path, grace_s: float) -> None:
    """No platform, or no possible time."""
    with pytest.raises(InvalidInput, match="--grace"):
        api.replace_gateways(tmp_path / "none", grace_s)
    with pytest.raises(Unavailable, match="no platform runs"):
        api.replace_gateways(tmp_path / "none")


async def test_up_with_other_options_says_how_to_get_them(short_path: Path) -> None:
    """A running platform does not change them."""
    async with running(short_path) as stores:
        with stores.home.held():
            async with stores.supervisor.door():
                with pytest.raises(Conflict, match="with --gateways 1") as refused:
                    await asyncio.to_thread(api.up_detached, short_path, api.Options(gateways=2))

    assert "easel down" in refused.value.hint
    assert "easel gateway restart" in refused.value.hint


def test_port_in_use_names_who_and_what_to_do(short_path: Path) -> None:
    """The reason travels from the background process to the caller."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EaselError, match=f"port {port} .*pid {os.getpid()}") as refused:
            api.up_detached(short_path, api.Options(port=port, control_port=free_port()))

    assert refused.value.code == "PORT_IN_USE"
    assert "--port" in refused.value.hint
    assert not Home(short_path).is_held()
    assert not _running_in(short_path)


def test_bad_options_make_nothing(tmp_path: Path) -> None:
    """Refused before a directory exists."""
    with pytest.raises(InvalidInput):
        api.up_detached(tmp_path / "new", api.Options(host="0.0.0.0"))

    assert not (tmp_path / "new").exists()


def test_no_platform_is_said_plainly(tmp_path: Path) -> None:
    """status and down on a home where nothing runs."""
    assert api.status(tmp_path / "none").phase == "stopped"
    assert api.down(tmp_path / "none") is False


def test_doctor_finds_readable_keys(tmp_path: Path) -> None:
    """A directory of secrets that others can read is an error with the command that repairs it."""
    home = Home(tmp_path)
    home.prepare()
    home.save(home.config())
    home.keys.chmod(0o755)

    findings = [f for f in api.doctor(tmp_path) if f.check == "home"]

    assert [f.level for f in findings] == ["error"]
    assert "chmod 700" in findings[0].hint


def _running_in(directory: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(directory) in part for part in process.info["cmdline"] or ()):
            found.append(process.pid)
    return found
