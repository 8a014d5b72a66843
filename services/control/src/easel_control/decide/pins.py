"""What a revision's images, repositories and prefixes are: found out by its first replica, then fixed for all of them.

Control cannot see registries: such a source is `mutable` at admission, unless its name is a digest or a whole commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec.structs import replace

from easel_contracts.facts import ReplicaState
from easel_contracts.spec import GitSource, ImageSource, Mount, NfsSource, ObjectSource, RevisionSpec, SourceDigest
from easel_control.decide.images import digest_of
from easel_control.model import ServiceRow

MUTABLE = "mutable"

_PINNED = re.compile(r"containers\[\d+\]\.image|storage\[\d+\]\.(?:git|image|oss)")
_WHOLE_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def image_sources(spec: RevisionSpec) -> tuple[SourceDigest, ...]:
    """The images that its containers are made from, as admission knows them."""
    images = [image for image in (spec.image, *(sidecar.image for sidecar in spec.sidecars)) if image is not None]
    return tuple(
        SourceDigest(source=f"containers[{i}].image", digest=digest_of(image.reference) or MUTABLE)
        for i, image in enumerate(images)
    )


def mount_source(place: int, mount: Mount) -> SourceDigest | None:
    """What admission knows of a mount that has a `source`; None: there is nothing in it before a replica runs."""
    at = f"storage[{place}]"
    match mount.source:
        case GitSource(commit=commit):
            whole = commit is not None and _WHOLE_COMMIT.fullmatch(commit)
            return SourceDigest(source=f"{at}.git", digest=commit if commit and whole else MUTABLE)
        case ImageSource(image=image):
            return SourceDigest(source=f"{at}.image", digest=digest_of(image) or MUTABLE)
        case ObjectSource():
            return SourceDigest(source=f"{at}.oss", digest=MUTABLE)
        case NfsSource():
            return SourceDigest(source=f"{at}.nfs", digest=MUTABLE)
    return None


def with_found(sources: tuple[SourceDigest, ...], found: tuple[SourceDigest, ...]) -> tuple[SourceDigest, ...]:
    """`sources`, with what `found` knows of those that replicas find out. Both are of the same content."""
    known = {s.source: s.digest for s in found if _PINNED.fullmatch(s.source)}
    return tuple(replace(s, digest=known.get(s.source, s.digest)) if s.digest == MUTABLE else s for s in sources)


def pinned(row: ServiceRow, replicas: Iterable[ReplicaState]) -> ServiceRow:
    """The row with what replicas say of its revision, and of the stable one of a rollout, where it is not known yet."""
    own = [r for r in replicas if r.pins and r.generation >= row.first_generation]
    row = replace(row, revision=_with_pins(row.revision, own))
    if row.rollout is not None:
        row = replace(row, rollout=replace(row.rollout, stable=_with_pins(row.rollout.stable, own)))
    return row


def newly_pinned(before: ServiceRow, after: ServiceRow) -> tuple[RevisionSpec, ...]:
    """Revisions of which `pinned` has put in something."""
    was = {spec.number: spec.sources for spec in _specs(before)}
    found = {spec.number: spec for spec in _specs(after) if spec.sources != was[spec.number]}
    return tuple(found.values())


def _specs(row: ServiceRow) -> tuple[RevisionSpec, ...]:
    return (row.revision,) if row.rollout is None else (row.revision, row.rollout.stable)


def _with_pins(spec: RevisionSpec, replicas: list[ReplicaState]) -> RevisionSpec:
    """Those that are ready are asked first: theirs is what everybody was given."""
    pins: dict[str, str] = {}
    for replica in sorted(replicas, key=lambda r: r.state != "ready"):
        if replica.revision == spec.number:
            pins = {**replica.pins, **pins}
    found = tuple(SourceDigest(source=source, digest=digest) for source, digest in pins.items())
    sources = with_found(spec.sources, found)
    return spec if sources == spec.sources else replace(spec, sources=sources)
