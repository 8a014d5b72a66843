"""The last good plans on disk: what was written last is read, whatever happened in between."""

from __future__ import annotations

from pathlib import Path

import msgspec

from easel_router.lastgood import FILE, LastGood
from easel_router.testing import a_group, a_plan


async def written(directory: Path, *changes: tuple[str, int | None], epoch: int = 1) -> LastGood:
    """A log with these changes: (service, port, or None: its route was removed)."""
    made = LastGood(directory, epoch)
    made.load()
    for service, port in changes:
        if port is None:
            made.remove(service)
        else:
            made.put(a_plan(service, port))
        await made.flush()
    return made


def read(directory: Path, epoch: int = 1) -> dict[str, int]:
    """What a new router would find: service → port."""
    made = LastGood(directory, epoch)
    made.load()
    return {name: plan.upstreams[0].port for name, plan in made.plans.items()}


async def test_the_newest_counts(tmp_path: Path) -> None:
    """Across writes and restarts; the file is for its owner alone."""
    await written(tmp_path, ("ocr", 1), ("chat", 2), ("ocr", 3))
    await written(tmp_path, ("chat", None), ("other", 4))

    assert read(tmp_path) == {"ocr": 3, "other": 4}
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_a_change_costs_a_line(tmp_path: Path) -> None:
    """Not the whole file; it is written anew when most of it is outdated."""
    await written(tmp_path, *((f"s{n}", n + 1) for n in range(50)))
    before = (tmp_path / FILE).stat().st_size
    await written(tmp_path, ("s1", 100))
    assert (tmp_path / FILE).stat().st_size < before + before / 20
    await written(tmp_path, *(("s1", n) for n in range(1, 1200)))

    assert len((tmp_path / FILE).read_bytes().splitlines()) < 1200
    assert read(tmp_path) == {f"s{n}": n + 1 for n in range(50)} | {"s1": 1199}


async def test_a_torn_last_line_is_not_there(tmp_path: Path) -> None:
    """A crash in the middle of a write costs that write; the next one repairs the file."""
    await written(tmp_path, ("ocr", 1), ("chat", 2))
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:-20])
    assert read(tmp_path) == {"ocr": 1}
    await written(tmp_path, ("chat", 3))

    assert read(tmp_path) == {"ocr": 1, "chat": 3}


async def test_what_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    """A broken middle, another epoch, an empty file: tokens come from control then."""
    await written(tmp_path, ("ocr", 1), ("chat", 2), ("other", 3))
    assert read(tmp_path, epoch=2) == {}
    lines = (tmp_path / FILE).read_bytes().splitlines()
    (tmp_path / FILE).write_bytes(b"\n".join([lines[0], b"{broken", *lines[2:]]) + b"\n")
    assert read(tmp_path) == {}
    (tmp_path / FILE).write_bytes(b"")
    assert read(tmp_path) == {}
    await written(tmp_path, ("ocr", 7))
    assert read(tmp_path) == {"ocr": 7}


async def test_the_file_of_an_earlier_version_is_dropped(tmp_path: Path) -> None:
    """It has one token per service: those are asked of control again."""
    old = {"schema_version": 2, "epoch": 1}
    plan = msgspec.to_builtins(a_plan("ocr", 1)) | {"token": {"value": "tok", "version": 1}}
    del plan["tokens"], plan["token_version"]
    lines = (msgspec.json.encode(line) for line in (old, {"service": "ocr", "plan": plan}))
    (tmp_path / FILE).write_bytes(b"".join(line + b"\n" for line in lines))
    assert read(tmp_path) == {}
    await written(tmp_path, ("ocr", 7))

    assert read(tmp_path) == {"ocr": 7}


async def test_groups_are_kept_too(tmp_path: Path) -> None:
    """In the same file, beside services; a group that went is gone."""
    made = LastGood(tmp_path, 1)
    ocr = a_plan("ocr", 1)
    made.put(ocr)
    for name in ("vision", "other"):
        made.put_group(a_group(name, ocr))
    await made.flush()
    made.remove_group("other")
    await made.flush()
    again = LastGood(tmp_path, 1)
    again.load()

    assert again.groups == {"vision": a_group("vision", ocr)}
    assert again.plans == {"ocr": ocr}
