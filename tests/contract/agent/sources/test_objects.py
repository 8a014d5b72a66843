"""Prefixes of object stores, from a real S3 server."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from easel_agent.sources import CannotFetch, Fetched, SourceLimits
from easel_contracts.spec import Mount, ObjectSource
from easel_kit.testing import eventually, free_port
from tests.contract.agent.sources.rig import Node, content, small_disk, turn
from tests.contract.agent.sources.s3_server import KEY, SECRET, S3Server, s3_server

MODEL = {"model/config.json": b"{}", "model/weights/a.bin": b"A" * 1000, "model/weights/b.bin": b"B" * 2000}
PIN = "storage[0].oss"


@pytest.fixture
def store() -> Iterator[S3Server]:
    """A store with the bucket `models`."""
    with s3_server() as found:
        found.put("models", {**MODEL, "model2/x": b"other"})
        yield found


@pytest.fixture
def node(store: S3Server, tmp_path: Path) -> Node:
    """A node with a login for it."""
    return Node(tmp_path, stores=store.logins(tmp_path / "stores.json"))


def _tree(found: Fetched) -> Path:
    return found.paths["/mnt/0"]


async def test_everything_below_a_prefix(store: S3Server, node: Node) -> None:
    """As files, only readable; the listing is the pin, and a second replica downloads nothing."""
    first = await node.fetch(ObjectSource(url="s3://models/model/"))
    downloads = list(store.downloads)
    second = await node.fetch(ObjectSource(url="s3://models/model/"), replica="r-2", pins=first.pins)

    assert content(_tree(first)) == {name.removeprefix("model/"): data for name, data in MODEL.items()}
    assert {path.stat().st_mode & 0o777 for path in _tree(first).rglob("*") if path.is_file()} == {0o444}
    assert first.pins[PIN].startswith("sha256:")
    assert sorted(downloads) == sorted(f"/models/{name}" for name in MODEL)
    assert (second, store.downloads) == (first, downloads)
    assert store.keys == {KEY, "w"}


@pytest.mark.parametrize("url", ["oss://models/model/", "oss://models/model"])
async def test_oss_through_the_interface_of_s3(
    store: S3Server, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount names the endpoint; without a login the store is read as everybody may, whatever the agent knows."""
    node = Node(tmp_path)
    source = ObjectSource(url=url, endpoint=store.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "agents-own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "agents-own")

    with pytest.raises(CannotFetch, match="forbids this node to read it"):
        await node.fetch(source)
    store.open_to_everybody("models")
    found = await node.fetch(source)

    assert sorted(content(_tree(found))) == ["config.json", "weights/a.bin", "weights/b.bin"]
    assert store.keys == {"", "w"}


async def test_one_object(node: Node) -> None:
    """A path that names an object is a file."""
    found = await node.fetch(ObjectSource(url="s3://models/model/config.json"))

    assert _tree(found).read_bytes() == b"{}"


async def test_one_change_is_one_download(store: S3Server, node: Node) -> None:
    """The rest is shared by both trees; what was there before stays as it was."""
    before = await node.fetch(ObjectSource(url="s3://models/model/"))
    store.downloads.clear()
    store.put("models", {"model/config.json": b"{1}"})

    after = await node.fetch(ObjectSource(url="s3://models/model/"))

    assert store.downloads == ["/models/model/config.json"]
    assert ((_tree(before) / "config.json").read_bytes(), (_tree(after) / "config.json").read_bytes()) == (
        b"{}",
        b"{1}",
    )
    name = "weights/a.bin"
    assert (_tree(before) / name).stat().st_ino == (_tree(after) / name).stat().st_ino


async def test_a_pin_that_the_store_no_longer_has(store: S3Server, node: Node, tmp_path: Path) -> None:
    """A node that has the tree uses it; another says that the prefix has changed."""
    before = await node.fetch(ObjectSource(url="s3://models/model/"))
    store.put("models", {"model/config.json": b"{1}"})

    again = await node.fetch(ObjectSource(url="s3://models/model/"), pins=before.pins)
    other = Node(tmp_path / "other", stores=tmp_path / "stores.json")
    with pytest.raises(CannotFetch, match="has changed since the revision's first replica") as refused:
        await other.fetch(ObjectSource(url="s3://models/model/"), pins=before.pins)

    assert again == before
    assert not refused.value.temporary


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://models/nothing/", "nothing lies below"),
        ("s3://no-such-bucket/x/", "the bucket does not exist"),
        ("s3://models/odd/", "`..`"),
        ("s3://models/slash/", "absolute"),
        ("s3://models/both/", "cannot both be files"),
        ("file:///etc", "no object store that can be mounted"),
        ("local:///etc", "no object store that can be mounted"),
        ("/etc", "no object store that can be mounted"),
        ("memory://x/", "no object store that can be mounted"),
        ("s3:///x", "s3://bucket/prefix/"),
    ],
)
async def test_refusals(store: S3Server, node: Node, url: str, said: str) -> None:
    """Each names the mount and what was wrong; no tree is left."""
    odd = {"odd/../../up": b"1", "odd/a": b"1", "slash//etc/passwd": b"1", "both/a": b"1", "both/a/b": b"1"}
    store.put("models", odd)

    with pytest.raises(CannotFetch) as refused:
        await node.fetch(ObjectSource(url=url))

    assert refused.value.message.startswith("storage[0].oss: ")
    assert said in refused.value.message
    assert not refused.value.temporary
    assert _kept(node) == []


@pytest.mark.parametrize(
    ("answer", "said", "temporary"),
    [
        (("403 Forbidden", "InvalidAccessKeyId"), "does not know the node's key", False),
        (("403 Forbidden", "SignatureDoesNotMatch"), "refuses the node's secret", False),
        (("403 Forbidden", "AccessDenied"), "forbids this node to read it", False),
    ],
)
async def test_a_wrong_login(store: S3Server, node: Node, answer: tuple[str, str], said: str, temporary: bool) -> None:
    """Told apart, with the place to correct it; nothing of the login is said, not even by the store's own text."""
    store.refuse = answer

    with pytest.raises(CannotFetch) as refused:
        await node.fetch(ObjectSource(url="s3://models/model/"))

    assert said in refused.value.message
    assert "EASEL_AGENT_OBJECT_STORES_FILE" in refused.value.message
    assert refused.value.temporary is temporary
    assert not any(secret in line for line in [*node.events, refused.value.message] for secret in (KEY, SECRET))


async def test_nobody_there(tmp_path: Path) -> None:
    """Worth another try."""
    source = ObjectSource(url="s3://models/model/", endpoint=f"http://127.0.0.1:{free_port()}")

    with pytest.raises(CannotFetch, match="cannot be reached") as refused:
        await Node(tmp_path).fetch(source)

    assert refused.value.temporary


async def test_an_oss_path_needs_an_endpoint(tmp_path: Path) -> None:
    """There is no default one."""
    with pytest.raises(CannotFetch, match="an endpoint is needed"):
        await Node(tmp_path).fetch(ObjectSource(url="oss://models/model/"))


async def test_a_driver_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the extra to install."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)

    with pytest.raises(CannotFetch, match=r"easel-serving-agent\[oss\]"):
        await Node(tmp_path).fetch(ObjectSource(url="oss://models/model/", endpoint="http://127.0.0.1:9"))


async def test_the_file_of_logins(store: S3Server, tmp_path: Path) -> None:
    """The most specific entry is taken; a file that others may read, or that is no such JSON, is refused unshown."""
    more = {f"s3://models{below}": {"key": f"key{number}", "secret": SECRET, "endpoint_url": store.url}
            for number, below in enumerate(("", "/model", "/mod"))}  # fmt: skip
    file = store.logins(tmp_path / "stores.json", **more)
    node = Node(tmp_path, stores=file)

    await node.fetch(ObjectSource(url="s3://models/model/"))
    assert store.keys == {"key1", "w"}
    file.chmod(0o640)
    with pytest.raises(CannotFetch, match="must be 0600"):
        await node.fetch(ObjectSource(url="s3://models/model/"))
    file.write_text(f'{{"s3": {{"secret": "{SECRET}", }}')
    file.chmod(0o600)
    with pytest.raises(CannotFetch, match="must be JSON") as refused:
        await node.fetch(ObjectSource(url="s3://models/model/"))
    file.unlink()
    with pytest.raises(CannotFetch, match="cannot be read"):
        await node.fetch(ObjectSource(url="s3://models/model/"))

    assert SECRET not in refused.value.message


async def test_two_replicas_share_one_download(store: S3Server, node: Node) -> None:
    """One that is cancelled meanwhile does not end it for the others."""
    store.gate = threading.Event()
    source = ObjectSource(url="s3://models/model/")
    tasks = [asyncio.create_task(node.fetch(source, replica=f"r-{number}")) for number in range(3)]
    await eventually(lambda: len(store.downloads) == 3)

    tasks[0].cancel()
    store.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1] == found[2]
    assert len(store.downloads) == 3


async def test_cancelled_by_all_it_ends_and_leaves_nothing_half(store: S3Server, node: Node) -> None:
    """What came whole may stay; the next fetch is complete."""
    store.gate = threading.Event()
    task = asyncio.create_task(node.fetch(ObjectSource(url="s3://models/model/")))
    await eventually(lambda: len(store.downloads) == 3)

    task.cancel()
    await turn()  # until the download knows
    store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert _kept(node) == []
    assert list((node.home / "objects" / "blobs").glob(".part-*")) == []
    found = await node.fetch(ObjectSource(url="s3://models/model/"))
    assert len(content(_tree(found))) == 3


async def test_leftovers_of_a_crash(store: S3Server, node: Node, tmp_path: Path) -> None:
    """A part, a tree without its mark and a content of the wrong length are not taken for whole."""
    found = await node.fetch(ObjectSource(url="s3://models/model/"))
    blobs = node.home / "objects" / "blobs"
    (blobs / ".part-1").write_bytes(b"half")
    (_tree(found).parent / ".easel-complete").unlink()
    cut = next(path for path in blobs.iterdir() if path.stat().st_size == 2000)
    cut.chmod(0o600)
    os.truncate(cut, 7)
    store.downloads.clear()

    again = Node(tmp_path, stores=tmp_path / "stores.json")
    found = await again.fetch(ObjectSource(url="s3://models/model/"))

    assert content(_tree(found)) == {name.removeprefix("model/"): data for name, data in MODEL.items()}
    assert store.downloads == ["/models/model/weights/b.bin"]
    assert list(blobs.glob(".part-*")) == []


async def test_an_object_that_changes_meanwhile(store: S3Server, node: Node) -> None:
    """The tree is never a mixture under an old name: it is looked at again."""

    def change(path: str) -> None:
        if path.endswith("config.json"):
            store.before_download = None
            store.put("models", {"model/config.json": b"{changed}"})

    store.before_download = change
    found = await node.fetch(ObjectSource(url="s3://models/model/"))
    same = await node.fetch(ObjectSource(url="s3://models/model/"))

    assert (_tree(found) / "config.json").read_bytes() == b"{changed}"
    assert same == found


async def test_progress_is_told(store: S3Server, tmp_path: Path) -> None:
    """So many of how many, while it goes on, and what it was at the end."""
    store.gate = threading.Event()
    limits = SourceLimits(objects_parallel=1, progress_every_s=0.02)
    node = Node(tmp_path, limits, store.logins(tmp_path / "stores.json"))
    task = asyncio.create_task(node.fetch(ObjectSource(url="s3://models/model/")))
    await eventually(lambda: any("0 of 3 files, 0 B of 2.9 KiB" in event for event in node.events))

    store.gate.set()
    await task

    assert "fetching 3 of 3 files, 2.9 KiB, from s3://models/model/" in node.events[0]
    assert "3 files, 2.9 KiB in" in node.events[-1]


async def test_pruning(store: S3Server, tmp_path: Path) -> None:
    """Above the cap the least lately used goes, with the contents that only it had, but nothing that is held."""
    limits = SourceLimits(objects_cache_mib=2, spare_s=0.0)
    node = Node(tmp_path, limits, store.logins(tmp_path / "stores.json"))
    shared = os.urandom(1 << 20)
    for name in "abc":
        store.put("models", {f"big-{name}/own": os.urandom(1 << 20), f"big-{name}/small": name.encode()})
    store.put("models", {"big-a/shared": shared})
    found = [await node.fetch(ObjectSource(url=f"s3://models/big-{name}/")) for name in "abc"]

    await node.sources.prune(set(found[0].held))

    assert [_tree(one).exists() for one in found] == [True, False, False]
    assert sorted(content(_tree(found[0]))) == ["own", "shared", "small"]
    assert sum(path.stat().st_size for path in (node.home / "objects" / "blobs").iterdir()) == (2 << 20) + 1


async def test_what_was_used_just_now_is_spared(store: S3Server, tmp_path: Path) -> None:
    """Who fetched it may not have told yet that it is held."""
    node = Node(tmp_path, SourceLimits(objects_cache_mib=0), store.logins(tmp_path / "stores.json"))
    found = await node.fetch(ObjectSource(url="s3://models/model/"))

    await node.sources.prune(())

    assert len(content(_tree(found))) == 3


async def test_a_writable_mount_does_not_touch_what_is_shared(node: Node) -> None:
    """The replica writes to a copy of its own."""
    source = ObjectSource(url="s3://models/model/")
    own = (await node.fetch(Mount(mount_path="/m", source=source, read_only=False))).paths["/m"]

    (own / "config.json").write_bytes(b"mine")
    shared = _tree(await node.fetch(source))

    assert (shared / "config.json").read_bytes() == b"{}"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize(
    ("options", "files"),
    [("size=1m", {"big": b"x" * (2 << 20)}), ("size=4m,nr_inodes=40", dict.fromkeys(range(60), b"x"))],
)
async def test_a_full_disk(store: S3Server, tmp_path: Path, options: str, files: dict[object, bytes]) -> None:
    """Seen before the download, or in the middle of it: said as such, and nothing is left."""
    store.put("models", {f"big/{name}": data for name, data in files.items()})
    with small_disk(tmp_path / "disk", options) as disk:
        node = Node(disk, stores=store.logins(tmp_path / "stores.json"))
        with pytest.raises(CannotFetch, match="no space is left on the node") as refused:
            await node.fetch(ObjectSource(url="s3://models/big/"))

        assert _kept(node) == []
        assert list((node.home / "objects" / "blobs").iterdir()) == []
    assert refused.value.message.startswith("storage[0].oss: ")


def _kept(node: Node) -> list[str]:
    return [path.name for path in (node.home / "objects" / "trees").iterdir()]
