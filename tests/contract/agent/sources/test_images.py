"""Files of images: what `Sources` does with what an engine copies. (The engine's side: tests of the Docker runtime.)"""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from easel_agent.sources import CannotFetch, Fetched, SourceLimits
from easel_contracts.spec import ImageSource, ScratchSource
from easel_kit.testing import eventually
from tests.contract.agent.sources.rig import Node, content, last_used

NEWEST = "sha256:" + "a" * 64
SOURCE = ImageSource(image="registry.example:5000/team/models:1.2", path="/models")


class Engine:
    """Answers as an engine would whose image holds two files, a link and a pipe."""

    def __init__(self) -> None:
        self.pin = NEWEST
        self.asked: list[tuple[str, str]] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.link_only = False

    async def files(self, reference: str, path: str, into: Path) -> str:
        """See ImageFiles."""
        self.asked.append((reference, path))
        if self.link_only:
            into.symlink_to("/etc")
            return self.pin
        into.mkdir(mode=0o700)
        (into / "a.bin").write_bytes(self.pin.encode())
        (into / "a.bin").chmod(0o4600)
        (into / "run").write_bytes(b"#!/bin/sh")
        (into / "run").chmod(0o700)
        (into / "python").symlink_to("/usr/bin/python3")
        os.mkfifo(into / "pipe")
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.pin


def _tree(found: Fetched) -> Path:
    return found.paths["/mnt/0"]


async def test_files_are_copied_once(tmp_path: Path) -> None:
    """Readable to all and writable to none; the digest is the pin, and who has it asks no engine."""
    node, engine = Node(tmp_path), Engine()

    first = await node.fetch(SOURCE, images=engine)
    again = await node.fetch(SOURCE, images=None, pins=first.pins, replica="r-2")

    assert first.pins == {"storage[0].image": NEWEST}
    assert engine.asked == [(SOURCE.image, "/models")]
    assert sorted(os.listdir(_tree(first))) == ["a.bin", "python", "run"]
    modes = [(_tree(first) / name).stat().st_mode & 0o7777 for name in (".", "a.bin", "run")]
    assert modes == [0o755, 0o444, 0o555]
    assert again == first


@pytest.mark.parametrize(
    ("pin", "asked"),
    [(NEWEST, f"registry.example:5000/team/models@{NEWEST}"), (f"local:{NEWEST}", NEWEST)],
)
async def test_a_pin_is_what_the_engine_is_asked_for(tmp_path: Path, pin: str, asked: str) -> None:
    """By digest, or by the id of an image of the node's own."""
    node, engine = Node(tmp_path), Engine()
    engine.pin = pin

    found = await node.fetch(SOURCE, images=engine, pins={"storage[0].image": pin})

    assert engine.asked == [(asked, "/models")]
    assert found.pins == {"storage[0].image": pin}


async def test_another_image_than_pinned(tmp_path: Path) -> None:
    """Is refused, and not kept."""
    node, engine = Node(tmp_path), Engine()
    engine.pin = "sha256:" + "b" * 64

    with pytest.raises(CannotFetch, match="first replica found"):
        await node.fetch(SOURCE, images=engine, pins={"storage[0].image": NEWEST})

    assert os.listdir(node.home / "images") == []


async def test_a_tag_that_moved_is_another_tree(tmp_path: Path) -> None:
    """A later revision gets the new files, the old one keeps its own."""
    node, engine = Node(tmp_path), Engine()
    before = await node.fetch(SOURCE, images=engine)
    engine.pin = "sha256:" + "b" * 64

    after = await node.fetch(SOURCE, images=engine)

    assert (_tree(before) / "a.bin").read_bytes() != (_tree(after) / "a.bin").read_bytes()


async def test_without_an_engine(tmp_path: Path) -> None:
    """The refusal says what is missing, and what else there is."""
    with pytest.raises(CannotFetch, match=r"^storage\[0\].image: .*needs a Docker engine"):
        await Node(tmp_path).fetch(SOURCE)


async def test_a_link_instead_of_files(tmp_path: Path) -> None:
    """What it leads to on the node is never mounted."""
    node, engine = Node(tmp_path), Engine()
    engine.link_only = True

    with pytest.raises(CannotFetch, match=r"image\.path is a link"):
        await node.fetch(SOURCE, images=engine)

    assert os.listdir(node.home / "images") == []


@pytest.mark.parametrize(
    ("error", "said", "cause"),
    [
        (CannotFetch("no such image", cause="image", temporary=True), "storage[0].image: no such image", "image"),
        (OSError(errno.ENOSPC, "full"), "no space is left on the node", "mount"),
    ],
)
async def test_failures_of_the_engine(tmp_path: Path, error: Exception, said: str, cause: str) -> None:
    """Name the mount; nothing is left."""
    node, engine = Node(tmp_path), Engine()
    engine.error = error

    with pytest.raises(CannotFetch) as refused:
        await node.fetch(SOURCE, images=engine)

    assert said in refused.value.message
    assert refused.value.cause == cause
    assert refused.value.temporary is getattr(error, "temporary", False)
    assert os.listdir(node.home / "images") == []


async def test_shared_and_cancelled(tmp_path: Path) -> None:
    """Two replicas wait for one copy; when both are gone, it is ended and nothing is left."""
    node, engine = Node(tmp_path), Engine()
    engine.gate = asyncio.Event()
    tasks = [asyncio.create_task(node.fetch(SOURCE, images=engine, replica=f"r-{number}")) for number in range(2)]
    await eventually(lambda: len(engine.asked) == 1)

    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(one) for one in ended] == [asyncio.CancelledError] * 2
    assert len(engine.asked) == 1
    assert os.listdir(node.home / "images") == []


async def test_pruning(tmp_path: Path) -> None:
    """Beyond the cap the least lately used goes, but not what is held."""
    node, engine = Node(tmp_path, SourceLimits(image_trees_kept=1)), Engine()
    found = []
    for letter in "abc":
        engine.pin = "sha256:" + letter * 64
        found.append(await node.fetch(SOURCE, images=engine))

    for number, one in enumerate(found):
        last_used(one, number)

    await node.sources.prune(found[0].held)

    assert [_tree(one).exists() for one in found] == [True, False, True]


async def test_scratch(tmp_path: Path) -> None:
    """Any user may write to it, it outlives a restart of the program, and what is not limited is said, once."""
    node = Node(tmp_path)
    disk, memory = ScratchSource(size_mib=10), ScratchSource(medium="memory")

    first = await node.fetch(disk, memory)
    (_tree(first) / "kept").write_bytes(b"1")
    again = await node.fetch(disk, memory)

    assert list(first.paths) == ["/mnt/0"]
    assert _tree(first).stat().st_mode & 0o7777 == 0o777
    assert content(_tree(again)) == {"kept": b"1"}
    assert len([event for event in node.events if "not limited to 10 MiB" in event]) == 1
    assert (first.pins, first.held) == ({}, ())
