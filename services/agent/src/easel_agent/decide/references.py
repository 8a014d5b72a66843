"""Names of images: what a reference says, which digest of several is meant, and how a pinned image is asked for.

The grammar is the distribution project's: `[host[:port]/]path[:tag][@digest]`; a first part with a dot, a colon, or
called `localhost` is a host, anything else belongs to the engine's default registry.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

LOCAL = "local:"
"""Before the id of an image that came from no registry: only this node's engine has it."""


class Reference(Struct, frozen=True):
    """An image's name in its parts."""

    host: str
    """Empty: the engine's default registry."""
    repository: str
    """With the host, without tag and digest: what digests are listed under."""
    tag: str
    digest: str


def parse(text: str) -> Reference:
    """The parts of a reference; `latest` where it has neither tag nor digest."""
    name, _, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    repository = f"{head}{slash}{last}"
    first, more, _ = repository.partition("/")
    host = first if more and ("." in first or ":" in first or first == "localhost") else ""
    return Reference(host, repository, tag or ("" if digest else "latest"), digest)


def pinned(text: str, pin: str) -> str:
    """How to ask an engine for what `pin` means: by digest, or by the id of its own copy."""
    if pin.startswith(LOCAL):
        return pin.removeprefix(LOCAL)
    return f"{parse(text).repository}@{pin}"


def pin_of(text: str, image_id: str, digests: Sequence[str]) -> str:
    """The pin of an image that an engine has: its registry's digest, else its id here.

    `digests`: `repository@sha256:…` as the engine lists them; an image may have been pulled from several places.
    """
    if text.startswith("sha256:"):
        return LOCAL + image_id
    wanted = parse(text)
    if wanted.digest:
        return wanted.digest
    repository = wanted.repository.removeprefix("docker.io/").removeprefix("library/")
    for digest in digests:
        name, _, value = digest.partition("@")
        if name in (wanted.repository, repository):
            return value
    return LOCAL + image_id
