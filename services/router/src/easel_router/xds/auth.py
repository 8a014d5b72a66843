"""What auth.lua is told of the tokens of a service or a group. Pure."""

from __future__ import annotations

from easel_router.decide.snapshot import Token

UNNAMED = "-"
"""For a token whose name nobody needs."""


def keys(tokens: tuple[Token, ...], group: str = "") -> dict[str, str]:
    """`token`: the only one, which never expires and has no limit; or `tokens`: a line for each,
    `EXPIRES NAME VALUE`. One token is what most have, and costs least.

    The names are told where one of the tokens has a limit: they are what it is limited by. A group's begin with
    `GROUP/`, so that the member, which is reached with them too, does not take them for its own.
    """
    if len(tokens) == 1 and not tokens[0].expires_unix_s and not tokens[0].rate_limit_qps:
        return {"token": tokens[0].value}
    limited = any(token.rate_limit_qps for token in tokens)
    names = (label(token, group) if limited else UNNAMED for token in tokens)
    lines = (f"{token.expires_unix_s} {name} {token.value}" for token, name in zip(tokens, names, strict=True))
    return {"tokens": "\n".join(lines)}


def label(token: Token, group: str = "") -> str:
    """A token as dynamic metadata `easel.token` names it: the descriptor of its limit."""
    return f"{group}/{token.name}" if group else token.name
