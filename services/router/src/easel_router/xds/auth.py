"""What auth.lua is told of the tokens of a service or a group. Pure."""

from __future__ import annotations

from easel_router.decide.snapshot import Token

UNNAMED = "-"
"""For a token whose name nobody needs."""


def keys(
    tokens: tuple[Token, ...], *, group: str = "", member: tuple[Token, ...] = (), web: str = "", home: str = ""
) -> dict[str, str]:
    """`token`: the only one, which never expires and has no limit; or `tokens`: a line for each,
    `EXPIRES NAME VALUE`. One token is what most have, and costs least.

    The names are told where one of the tokens has a limit: they are what it is limited by. Those of a group (`tokens`
    are its, `member` those of the member that is reached) begin with `GROUP/`, so that the member, which is reached
    with them too, does not take them for its own.

    `web`: a service that browsers open too, with links and cookies (browser.lua); `home`: the path of its cookies.
    """
    everyone = [*((label(token.name, group), token) for token in tokens), *((token.name, token) for token in member)]
    if not web and len(everyone) == 1 and not everyone[0][1].expires_unix_s and not everyone[0][1].rate_limit_qps:
        return {"token": everyone[0][1].value}
    limited = any(token.rate_limit_qps for _, token in everyone)
    lines = (f"{token.expires_unix_s} {name if limited else UNNAMED} {token.value}" for name, token in everyone)
    return {"tokens": "\n".join(lines)} | ({"web": web, "home": home} if web else {})


def label(token: str, group: str = "") -> str:
    """A token as dynamic metadata `easel.token` names it: the descriptor of its limit."""
    return f"{group}/{token}" if group else token
