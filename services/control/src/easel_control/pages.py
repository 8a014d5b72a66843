"""What every list and call of control's APIs checks alike: page sizes, page tokens, workspaces."""

from __future__ import annotations

from easel_contracts.errors import InvalidInput, NotFound

DEFAULT_SIZE = 100
MAX_SIZE = 1000


def page_size(asked: int) -> int:
    """Entries of a page; raises InvalidInput."""
    if not 0 <= asked <= MAX_SIZE:
        raise InvalidInput(f"page_size {asked} is not allowed; 0 (means {DEFAULT_SIZE}) to {MAX_SIZE} is")
    return asked or DEFAULT_SIZE


def workspace_of(asked: str, own: str) -> str:
    """The workspace a request means; raises NotFound for any but the platform's own."""
    if asked not in ("", own):
        raise NotFound("NO_SUCH_WORKSPACE", f"there is no workspace {asked!r}", f"leave it out, or use {own!r}")
    return own


def plain(text: str) -> str:
    """A text from a request, as it is; raises InvalidInput where the database could not hold it."""
    if "\0" in text:
        raise InvalidInput("a NUL character is not allowed in names, keys and page tokens")
    return text
