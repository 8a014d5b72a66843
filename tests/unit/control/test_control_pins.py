"""What replicas find out about a revision's sources is kept, once, and makes no other revision."""

from __future__ import annotations

from msgspec.structs import replace

from easel_contracts.spec import Image, RevisionSpec, SourceDigest
from easel_control.decide import change
from easel_control.decide.pins import newly_pinned, pinned, with_found
from easel_control.decide.rollout import begun
from easel_control.model import RolloutRow
from easel_control.sources import changed_sources
from tests.unit.control.rows import NOW, SPEC, content, replica, row

IMAGE, GIT = "containers[0].image", "storage[0].git"


def source(path: str, digest: str = "mutable") -> SourceDigest:
    return SourceDigest(source=path, digest=digest)


OPEN = (source(IMAGE), source(GIT), source("storage[1]"), source("storage[2].nfs"))
UNKNOWN = replace(SPEC, command=None, image=Image(reference="ocr:1"), sources=OPEN)
PINS = {IMAGE: "sha256:1", GIT: "c1"}


def digests(spec: RevisionSpec) -> list[str]:
    return [s.digest for s in spec.sources]


def test_the_first_answer_is_kept() -> None:
    before = row(revision=UNKNOWN)
    after = pinned(before, [replica("a", "starting", pins={IMAGE: "sha256:1"})])

    assert digests(after.revision) == ["sha256:1", "mutable", "mutable", "mutable"]
    assert newly_pinned(before, after) == (after.revision,)
    again = pinned(after, [replica("b", pins={IMAGE: "sha256:2", GIT: "c1"})])
    assert digests(again.revision) == ["sha256:1", "c1", "mutable", "mutable"]
    assert newly_pinned(again, pinned(again, [replica("b", pins=PINS)])) == ()


def test_what_is_ready_is_asked_first() -> None:
    found = [replica("a", "starting", pins={IMAGE: "sha256:2"}), replica("b", "ready", pins={IMAGE: "sha256:1"})]

    assert digests(pinned(row(revision=UNKNOWN), found).revision)[0] == "sha256:1"


def test_others_pins_do_not_count() -> None:
    """Those of another revision, of an earlier service of this name, and of sources that no replica finds out."""
    before = row(revision=UNKNOWN, first_generation=5)
    found = [
        replica("a", generation=4, pins=PINS), replica("b", generation=5, revision=2, pins=PINS),
        replica("c", generation=5, pins={"storage[1]": "x", "storage[2].nfs": "x", "storage[9].git": "x"}),
    ]  # fmt: skip

    assert pinned(before, found) == before


def test_both_revisions_of_a_rollout_are_looked_at() -> None:
    rollout: RolloutRow = begun(UNKNOWN, row().rolling, NOW, interrupt=False, forgiven=())
    before = row(revision=replace(UNKNOWN, number=2), rollout=rollout)
    after = pinned(before, [replica("a", pins=PINS), replica("b", revision=2, pins={IMAGE: "sha256:2"})])

    assert after.rollout is not None
    assert digests(after.rollout.stable)[:2] == ["sha256:1", "c1"]
    assert digests(after.revision)[:2] == ["sha256:2", "mutable"]
    assert {spec.number for spec in newly_pinned(before, after)} == {1, 2}


def test_the_same_configuration_is_no_other_revision_once_it_is_known_what_it_is() -> None:
    known = pinned(row(revision=UNKNOWN), [replica("a", pins=PINS)])
    asked = replace(UNKNOWN, number=0)

    assert change.updated(known, content(revision=asked), 1, NOW) is None
    other = change.updated(known, content(revision=replace(asked, image=Image(reference="ocr:2"))), 1, NOW)
    assert other is not None
    assert other.new_revision
    assert digests(other.row.revision) == ["mutable"] * 4, "another revision looks anew"
    local = replace(asked, sources=(*OPEN[:2], source("storage[1]", "sha256:f"), OPEN[3]))
    changed = change.updated(known, content(revision=local), 1, NOW)
    assert changed is not None
    assert changed.new_revision


def test_a_known_source_does_not_change_under_a_revision() -> None:
    was = (source(IMAGE, "sha256:1"), source(GIT), source("storage[1]", "sha256:2"))
    now = (source(IMAGE), source(GIT), source("storage[1]", "sha256:3"))

    told = changed_sources(1, was, with_found(now, was))

    assert [text.split()[0] for text in told] == [GIT, "storage[1]"]
