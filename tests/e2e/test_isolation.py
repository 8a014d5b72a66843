"""Replicas run strangers' code: what it can reach, what it can use up, and what it leaves behind.

With root replicas are users of their own; elsewhere the platform must say "not isolated", and that is what is tested.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from easel_kit.testing import eventually
from easel_sdk import Client
from easel_standalone.stores.postgres import SHIM
from tests.e2e.platform import HERE, Platform, deploy, remove, running_platform, spec

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="separate users need root; elsewhere: `not isolated`")

EASELS = {
    "PATH", "HOME", "LANG", "TMPDIR", "PYTHONUNBUFFERED", "VIRTUAL_ENV", "HOST", "PORT", "NAMESPACE", "POD_NAME",
    "POD_IP", "NODE_NAME", "SERVICE_NAME", "EASEL_REVISION", "EASEL_REPLICA", "EASEL_SERVICE", "TRACEPARENT",
}  # fmt: skip
MACHINES = {"TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"}
"""What a replica may have in its environment, beside what its own service.json gives."""


class Stranger:
    """A deployed hostile_server.py."""

    def __init__(self, service: Any, replica: Any) -> None:
        self.service, self.replica = service, replica

    @property
    def name(self) -> str:
        """Of the service."""
        return str(self.service.service_name)

    async def runs(self, code: str, **values: Any) -> dict[str, Any]:
        """What `code`, which sees `values`, put into `found`."""
        lines = [f"{name} = {value!r}" for name, value in values.items()]
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.post(
                self.service.endpoint, data="\n".join([*lines, code]), headers={"Authorization": self.service.token}
            ) as answer,
        ):
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = await answer.json()
        assert "failed" not in found, found["failed"]
        return found


async def stranger(easel: Client, name: str, *, memory: int = 256, **changes: Any) -> Stranger:
    document = spec(name, command="python hostile_server.py", **changes)
    document["metadata"]["memory"] = memory
    document["storage"][0]["local"]["path"] = str(HERE / "served")
    document["containers"][0]["env"] = [{"name": "OWN_SECRET", "value": f"secret-of-{name}"}]
    service = await deploy(easel, document)
    return Stranger(service, (await easel.replicas.list(name))[0])


@pytest.fixture
async def hostile(easel: Client) -> AsyncIterator[Stranger]:
    """A stranger."""
    yield await stranger(easel, "hostile")
    await remove(easel, "hostile")


@pytest.fixture
async def other(easel: Client) -> AsyncIterator[Stranger]:
    """Another one, whose things are not the first one's."""
    yield await stranger(easel, "victim")
    await remove(easel, "victim")


async def test_the_platform_says_how_isolated_replicas_are(easel: Client) -> None:
    """With root: users and views of their own; else `not isolated`."""
    (node,) = await easel.nodes.list()

    assert node.isolation.startswith("uid") if os.geteuid() == 0 else node.isolation.startswith("not isolated")


@root_only
async def test_an_ordinary_users_platform_says_not_isolated(tmp_path: Path) -> None:
    """Started without root it serves, and says in so many words what it cannot separate."""
    as_nobody = (sys.executable, "-I", "-S", str(SHIM), "--as-nobody", "--")
    with running_platform(tmp_path / "home", as_nobody) as platform:
        async with platform.client() as client:
            (node,) = await client.nodes.list()
            service = await deploy(client, spec("plain"))
            (replica,) = await client.replicas.list("plain")

            assert node.isolation.startswith("not isolated")
            assert replica.isolation.startswith("not isolated")
            assert service.status == "Running"


@root_only
async def test_it_reads_nothing_of_the_platforms(platform: Platform, hostile: Stranger, other: Stranger) -> None:
    """Keys, configuration, stores, logs, the other replica's files: not there, or not readable."""
    files = [str(f) for f in platform.home.rglob("*") if f.is_file() and hostile.replica.name not in str(f)]
    files = [f for f in files if "/agent/python/" not in f and "/agent/environments/" not in f]
    assert any(f.endswith("keys/access-key") for f in files)
    assert any(f.endswith("keys/control.nk") for f in files)
    assert any(other.replica.name in f for f in files)

    found = await hostile.runs(
        "found['read'] = [f for f in files if attempt(lambda: open(f, 'rb').read(1)).startswith('SUCC')]\n"
        "found['listed'] = []\n"
        "for directory in directories:\n"
        "    try:\n"
        "        found['listed'] += os.listdir(directory)\n"
        "    except OSError:\n"
        "        pass",
        files=files, directories=sorted({os.path.dirname(f) for f in files}),
    )  # fmt: skip

    assert found["read"] == []
    # Empty directories on the way to its own place, nothing beside.
    assert set(found["listed"]) <= {"agent", "replicas", "python", hostile.replica.name}


@root_only
async def test_it_sees_no_process_but_its_own(platform: Platform, hostile: Stranger, other: Stranger) -> None:
    """No pid, environment or memory of the platform or of another replica; no signal and no trace reaches them."""
    pids = [p["pid"] for p in platform.read("status") if p["pid"]] + [other.replica.pid, os.getpid()]

    found = await hostile.runs(
        "found['visible'] = sorted(int(p) for p in os.listdir('/proc') if p.isdigit())\n"
        "found['commands'] = [open(f'/proc/{p}/cmdline').read() for p in found['visible']]\n"
        "found['environments'] = {p: attempt(lambda: open(f'/proc/{p}/environ').read())\n"
        "                         for p in [1, *pids] if p != os.getpid()}\n"
        "found['memories'] = {p: attempt(lambda: open(f'/proc/{p}/mem', 'rb').read(1)) for p in [1, *pids]\n"
        "                     if p != os.getpid()}\n"
        "found['signals'] = {p: attempt(lambda: os.kill(p, 0)) for p in [1, *pids] if p != os.getpid()}\n"
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "found['traces'] = {p: libc.ptrace(16, p, 0, 0) for p in [1, *pids] if p != os.getpid()}",
        pids=pids,
    )  # fmt: skip

    first, *own = found["commands"]
    assert "launch" in first  # its own process 1
    assert len(own) == 1
    assert "hostile_server.py" in own[0]
    for kind in ("environments", "memories", "signals"):
        assert not [(p, what) for p, what in found[kind].items() if what.startswith("SUCC")], kind
    assert set(found["traces"].values()) == {-1}


@root_only
async def test_it_reaches_no_socket_of_the_platforms(platform: Platform, hostile: Stranger) -> None:
    """PostgreSQL, the agent, control, xDS, Envoy's administration: no door. No abstract socket either."""
    sockets = [str(f) for f in Path("/").glob("tmp/easel-*/*") if f.is_socket()]
    sockets += [str(f) for f in platform.home.rglob("*") if f.is_socket()]
    names = {Path(s).name for s in sockets}
    assert {"control.sock", "agent.sock", "xds.sock", ".s.PGSQL.5432", "supervisor.sock"} <= names

    found = await hostile.runs(
        "import socket\n"
        "found['connected'] = {s: attempt(lambda: socket.socket(socket.AF_UNIX).connect(s)) for s in sockets}\n"
        "rows = [line.split() for line in open('/proc/net/unix')][1:]\n"
        "abstract = sorted({row[7][1:] for row in rows if len(row) > 7 and row[7].startswith('@')})\n"
        "found['abstract'] = {a: attempt(lambda: socket.socket(socket.AF_UNIX).connect('\\0' + a)) for a in abstract}",
        sockets=sockets,
    )  # fmt: skip

    assert not [s for s, what in found["connected"].items() if what.startswith("SUCC")]
    assert not [s for s, what in found["abstract"].items() if what.startswith("SUCC") and "easel" in s]


@root_only
async def test_it_can_neither_tell_nor_hear_facts(platform: Platform, hostile: Stranger) -> None:
    """NATS listens on the machine's loopback; without an nkey it lets nobody publish, subscribe or read a stream."""
    port = platform.config()["nats_port"]
    talk = (
        "import json, socket\n"
        "def talk(lines):\n"
        "    with socket.create_connection(('127.0.0.1', port), 5) as bus:\n"
        "        bus.settimeout(3)\n"
        "        bus.sendall(lines.encode())\n"
        "        heard = b''\n"
        "        try:\n"
        "            while more := bus.recv(65536):\n"
        "                heard += more\n"
        "        except OSError as error:\n"
        "            heard += repr(error).encode()\n"
        "    return heard.decode()\n"
        "hello = 'CONNECT ' + json.dumps({'verbose': True, 'pedantic': False}) + '\\r\\n'\n"
        "found['plain'] = talk(hello + 'PUB easel.fact.default.service.evil.created 2\\r\\nhi\\r\\nPING\\r\\n')\n"
        "found['first'] = talk('PUB easel.fact.default.service.evil.created 2\\r\\nhi\\r\\nPING\\r\\n')\n"
        "found['hear'] = talk(hello + 'SUB easel.> 1\\r\\nSUB _INBOX.x 2\\r\\nPING\\r\\n')\n"
        "asks = 'SUB _INBOX.x 1\\r\\nPUB $JS.API.STREAM.NAMES _INBOX.x 0\\r\\n\\r\\n'\n"
        "found['read'] = talk(hello + asks + 'PING\\r\\n')\n"
    )

    found = await hostile.runs(talk, port=port)

    for kind, heard in found.items():
        assert "Authorization Violation" in heard or "-ERR" in heard, (kind, heard)
        assert "PONG" not in heard
        assert "MSG " not in heard
    types = platform.easel("events", "-o", "json")
    assert "evil" not in types


@root_only
async def test_its_environment_is_allow_listed(hostile: Stranger) -> None:
    """Easel's own names, the machine's few, and what the service asked for."""
    found = await hostile.runs("found['names'] = sorted(os.environ); found['own'] = os.environ.get('OWN_SECRET')")

    assert set(found["names"]) - EASELS - MACHINES <= {"OWN_SECRET", "LC_CTYPE"}
    assert found["own"] == "secret-of-hostile"


@root_only
async def test_it_is_a_user_of_its_own(hostile: Stranger, other: Stranger) -> None:
    """Another uid than root and than each other; no groups, no capabilities, no way back."""
    code = (
        "found['ids'] = [os.getresuid(), os.getresgid(), os.getgroups()]\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)\n"
        "found['capabilities'] = [int(status[n].strip(), 16) for n in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd')]\n"
        "found['no_new_privileges'] = status['NoNewPrivs'].strip()\n"
        "found['root'] = attempt(lambda: os.setuid(0))"
    )
    first, second = await hostile.runs(code), await other.runs(code)

    for found in (first, second):
        assert found["capabilities"] == [0, 0, 0, 0]
        assert found["no_new_privileges"] == "1"
        assert found["root"].startswith("refused")
        (uid, *_), (gid, *_), groups = found["ids"]
        assert uid == gid > 60_000
        assert groups == []
    assert first["ids"] != second["ids"]


@root_only
async def test_it_writes_only_into_its_own(hostile: Stranger) -> None:
    """The system, the mounted code, the platform's directories are read-only or not there; what is its own is not."""
    found = await hostile.runs(
        "places = ['/', '/etc', '/usr', '/usr/bin', '/var', '/opt', '/root', '/run', '/dev', '/sys', '/code']\n"
        "found['refused'] = {p: attempt(lambda: open(p + '/mine', 'w').write('x')) for p in places}\n"
        "own = ['/tmp', '/dev/shm', os.environ['HOME'], os.environ['TMPDIR']]\n"
        "found['own'] = {p: attempt(lambda: open(p + '/mine', 'w').write('x')) for p in own}\n"
        "found['mount'] = attempt(lambda: os.mknod('/tmp/device', 0o60666, os.makedev(8, 0)))"
    )

    assert not [p for p, what in found["refused"].items() if what.startswith("SUCC")]
    assert not [p for p, what in found["own"].items() if what.startswith("refused")]
    assert found["mount"].startswith("refused")
    assert not Path("/tmp/mine").exists()
    assert not Path("/dev/shm/mine").exists()


@root_only
async def test_too_much_memory_is_explained_and_it_starts_again(easel: Client) -> None:
    """The limit holds; the replica says OutOfMemory with its numbers, and serves again."""
    service = await deploy(easel, spec("hungry"))
    async with aiohttp.ClientSession() as session:
        url = f"{service.endpoint}/allocate?mib=600"
        async with session.get(url, headers={"Authorization": service.token, "Idempotency-Key": "x"}) as answer:
            assert answer.status != 200

    async def explained() -> bool:
        (replica,) = await easel.replicas.list("hungry")
        return replica.reason == "OutOfMemory" and "256" in replica.message and "metadata.memory" in replica.message

    await eventually(explained, 30)

    async def again() -> bool:
        (replica,) = await easel.replicas.list("hungry")
        return bool(replica.ready and replica.restarts >= 1)

    await eventually(again, 60)
    await remove(easel, "hungry")


@root_only
async def test_a_fork_bomb_stays_inside(easel: Client, other: Stranger) -> None:
    """It comes to its limit of processes; the machine and other services do not feel it."""
    (node,) = await easel.nodes.list()
    if not node.limits.startswith("cgroup"):
        pytest.skip(f"processes are not limited here: {node.limits}")
    bomb = await stranger(easel, "bomb", memory=2048)

    found = await bomb.runs(
        "threading.stack_size(65536)\n"
        "hold, started = threading.Event(), []\n"
        "try:\n"
        "    while len(started) < 20000:\n"
        "        thread = threading.Thread(target=hold.wait, daemon=True)\n"
        "        thread.start()\n"
        "        started.append(thread)\n"
        "except RuntimeError as error:\n"
        "    found['refused'] = str(error)\n"
        "found['fork'] = attempt(lambda: os.fork() or os._exit(0))\n"
        "found['started'] = len(started)\n"
        "hold.set()\n"
    )

    assert "start new thread" in found["refused"]
    assert found["fork"].startswith("refused: BlockingIOError")
    assert 1000 < found["started"] <= 4096
    assert await other.runs("found['fine'] = True") == {"fine": True}
    await remove(easel, "bomb")


@root_only
async def test_nothing_of_it_is_left(platform: Platform, easel: Client) -> None:
    """Daemons of its own, files, control groups, and its uid's processes are gone when it is deleted."""
    guest = await stranger(easel, "guest")
    found = await guest.runs(
        "found['uid'] = os.getuid()\n"
        "open('/tmp/mine', 'w').write('x'); open('/dev/shm/mine', 'w').write('x')\n"
        "import signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
    )
    uid, pid = found["uid"], guest.replica.pid
    groups = [path for path in _groups_of(pid) if guest.replica.name in str(path) or "easel" in str(path)]
    assert len(_pids_of(uid)) >= 2
    assert list(platform.home.glob(f"agent/replicas/*{guest.replica.name}*")) or groups

    await remove(easel, "guest")

    await eventually(lambda: not _pids_of(uid), 30)
    await eventually(lambda: not [path for path in groups if path.exists()], 30)
    assert not list((platform.home / "agent" / "replicas").glob(f"*{guest.replica.name}*"))
    assert not [f for f in platform.home.rglob("*") if f.lstat().st_uid == uid]


def _pids_of(uid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _groups_of(pid: int) -> list[Path]:
    """The control groups of a process, as directories."""
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for root in (Path("/sys/fs/cgroup"), *(Path("/sys/fs/cgroup") / c for c in controllers.split(",") if c)):
            directory = root / path.lstrip("/")
            if path != "/" and directory.is_dir():
                found.append(directory)
    return found
