"""The stores run whoever starts the platform: root with namespaces, root without, an ordinary user."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from easel_standalone.stores.postgres import SHIM, RunAs
from tests.flow.standalone.stores import running

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="root has to be given up, which only root can")

SCRIPT = """
import asyncio, os, sys
from pathlib import Path
from easel_standalone.stores.postgres import choose_user
from tests.flow.standalone.stores import running

async def main():
    async with running(Path(sys.argv[1])) as stores:
        print(os.geteuid(), choose_user().kind, all([await c.check() for c in stores.supervisor.children.values()]))

asyncio.run(main())
"""


async def test_ordinary_user_starts_both(short_path: Path) -> None:
    """No root, no capability, no other user: everything runs as the caller."""
    command = [sys.executable, "-c", SCRIPT, str(short_path)]
    if os.geteuid() == 0:
        command = [sys.executable, "-I", "-S", str(SHIM), "--as-nobody", "--", *command]

    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()

    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    assert said.decode().split() == [str(uid), "self", "True"]


@root_only
async def test_root_without_namespaces_becomes_a_real_user() -> None:
    """Where containers forbid user namespaces, PostgreSQL runs as another user, its files are theirs; twice."""
    nobody = pwd.getpwnam("nobody")
    run_as = RunAs("user", nobody.pw_uid, nobody.pw_gid, "nobody")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o711)
        for _ in range(2):
            async with running(Path(directory) / "h", run_as) as stores:
                postgres = stores.supervisor.children["postgres"]
                status = Path(f"/proc/{postgres.pid}/status").read_text()

                assert stores.database.data.stat().st_uid == nobody.pw_uid
                assert await postgres.check()
                assert f"Uid:\t{nobody.pw_uid}\t{nobody.pw_uid}\t" in status
        shutil.rmtree(stores.database.socket_dir)
