"""Real NATS and PostgreSQL: start, kill, restart, leftovers."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from easel_kit.testing import eventually
from easel_standalone.child import Child
from easel_standalone.home import Home
from easel_standalone.stores.postgres import ADMIN, Postgres
from tests.flow.standalone.stores import Stores, running


async def _admin(stores: Stores) -> asyncpg.Connection[asyncpg.Record]:
    dsn = stores.database.dsn(ADMIN).replace("/easel?", "/postgres?")
    return await asyncpg.connect(dsn, password=stores.keys.admin_password.read_text())


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _back(child: Child, before: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return child.pid not in (None, before) and await child.check()

    return check


async def test_both_survive_kill_and_keep_what_was_stored(short_path: Path) -> None:
    """kill -9 of each: the supervisor starts it again with everything that was acknowledged."""
    async with running(short_path) as stores:
        connection = await _admin(stores)
        await connection.execute("CREATE TABLE kept (x int); INSERT INTO kept VALUES (7)")
        client = await stores.client("migrate")

        for name in ("nats", "postgres"):
            child = stores.supervisor.children[name]
            before = child.pid
            assert before is not None
            os.kill(before, signal.SIGKILL)
            await eventually(_back(child, before))
            assert child.restarts >= 1

        assert await (await _admin(stores)).fetchval("SELECT x FROM kept") == 7
        await client.close()


async def test_next_start_finds_everything_after_a_killed_supervisor(short_path: Path) -> None:
    """A supervisor killed with its stores running leaves no process; its pid files do not stand in the way."""
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.flow.standalone.stores import Stores\n"
        "async def main():\n"
        "    stores = Stores(Path(sys.argv[1]))\n"
        "    await stores.start()\n"
        "    print(*[c.pid for c in stores.supervisor.children.values()], flush=True)\n"
        "    await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(short_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 2
    parent.kill()
    await parent.wait()

    async with running(short_path) as stores:
        assert await (await _admin(stores)).fetchval("SELECT 1") == 1
        assert not [pid for pid in pids if _runs(pid)]


async def test_living_server_is_never_taken_for_a_dead_one(short_path: Path) -> None:
    """Two servers on one directory would destroy it."""
    async with running(short_path) as stores:
        found = stores.database.leftover()

        assert found is not None
        assert found.pid == stores.supervisor.children["postgres"].pid


async def test_pid_file_of_another_program_is_no_obstacle(short_path: Path) -> None:
    """In a container the old server's pid often belongs to someone else after a restart."""
    async with running(short_path) as stores:
        text = stores.database.pid_file.read_text()
    stores.database.pid_file.write_text(text.replace(text.splitlines()[0], str(os.getpid()), 1))

    async with running(short_path) as again:
        assert await (await _admin(again)).fetchval("SELECT 1") == 1


async def test_database_refuses_wrong_password_and_strangers(short_path: Path) -> None:
    """Passwords are asked even on the socket, and the socket's directory is closed to others."""
    async with running(short_path) as stores:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(stores.database.dsn(ADMIN).replace("/easel?", "/postgres?"), password="wrong")
        sockets = list(stores.home.run.glob(".s.PGSQL.*"))

        assert sockets
        assert stat.S_IMODE(stores.home.run.stat().st_mode) == 0o700
        assert not [c for c in psutil.net_connections("tcp") if c.pid == stores.supervisor.children["postgres"].pid]


async def test_half_made_data_directory_is_made_again(short_path: Path) -> None:
    """initdb that was killed in the middle leaves nothing that the next start believes in."""
    half = Home(short_path).data("postgres") / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")

    async with running(short_path) as stores:
        assert isinstance(stores.database, Postgres)
        assert not half.exists()
