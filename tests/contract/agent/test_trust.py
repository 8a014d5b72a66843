"""Replicas run strangers' code: what they must not be able to do (issue: a key, a fact, the database)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.agent.rig import process_runtime

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="separate users need root; elsewhere: `not isolated`")

ATTACK = """
import os, socket, sys
def attempt(name, action):
    try:
        print(name, "SUCCEEDED", action(), flush=True)
    except OSError as error:
        print(name, "refused", type(error).__name__, flush=True)
def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
root = sys.argv[1]
attempt("key", lambda: open(root + "/keys/control.seed").read())
attempt("socket", lambda: connect(root + "/run/postgres.sock"))
attempt("inventory", lambda: open(root + "/agent/inventory.json").read())
attempt("keys", lambda: os.listdir(root + "/keys"))
attempt("others", lambda: [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) > 50])
attempt("parent", lambda: os.kill(1, 9))
attempt("memory", lambda: open("/proc/1/environ").read())
attempt("root", lambda: os.setuid(0))
attempt("mount", lambda: os.makedirs("/usr/mine"))
attempt("home", lambda: os.listdir("/root/.ssh"))
print("own", sorted(os.listdir(root)), sorted(os.listdir(root + "/agent")), flush=True)
print("over", flush=True)
"""


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """A socket that anybody may connect to, as far as its own rights go."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o777)
        server.listen()
        yield


async def test_a_replica_cannot_reach_what_is_easels(short_path: Path) -> None:
    """Keys, sockets, home, other processes, root's rights: all out of reach."""
    for name in ("keys", "run"):
        (short_path / name).mkdir()
    (short_path / "keys/control.seed").write_text("SU-secret")
    (short_path / "keys/control.seed").chmod(0o644)  # even where rights were forgotten
    script = f"cat > attack.py <<'END'\n{ATTACK}\nEND\npython attack.py {short_path}; sleep 100"

    with listening(short_path / "run/postgres.sock"):
        async with process_runtime(short_path / "agent", hide=str(short_path)) as runtime:
            assert runtime.isolation.sentence == "uid+mounts"
            run = await runtime.run(script=script)
            output = await runtime.printed(run, "over\n")

    refused = {line.split()[0] for line in output.splitlines() if " refused " in line}
    assert {"key", "socket", "inventory", "keys", "root", "mount", "home", "parent", "memory"} <= refused
    assert "others SUCCEEDED []" in output
    assert "own ['agent'] ['python', 'replicas']" in output


async def test_two_replicas_are_two_users(short_path: Path) -> None:
    """Neither sees the other's processes or files."""
    async with process_runtime(short_path / "agent") as runtime:
        first = await runtime.run(script="id -u; echo secret > $HOME/x; echo done; sleep 100")
        uid = (await runtime.printed(first, "done")).split()[0]
        theirs = runtime.agent.fleet.replicas[first.replica].directory / "home" / "x"
        second = await runtime.run(script=f"id -u; cat {theirs}; pgrep -u {uid}; echo done; sleep 100")

        output = (await runtime.printed(second, "done")).split()

    assert uid != output[0]
    assert "secret" not in output
    assert output[-1] == "done"


async def test_a_set_uid_program_gives_nothing(short_path: Path, tmp_path: Path) -> None:
    """no_new_privs and nosuid: root's rights cannot be had from a mounted program."""
    program = tmp_path / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    async with process_runtime(short_path / "agent") as runtime:
        run = await runtime.run(script=f"{program} -u; /mnt/x/id -u; echo done; sleep 9", mounts=_mount(tmp_path))

        output = await runtime.printed(run, "done")

    assert "\n0\n" not in output
    assert not output.startswith("0\n")


def _mount(path: Path) -> tuple[object, ...]:
    from easel_contracts.spec import Mount

    return (Mount(mount_path="/mnt/x", host_path=str(path), read_only=False),)
