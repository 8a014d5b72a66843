"""Tokens: from control's answer to what the gateway's script is told."""

from __future__ import annotations

import pytest

from easel_proto.internal.v1.control_pb2 import NamedToken, TokenOf
from easel_router.decide.snapshot import Token, token_problems
from easel_router.tokens import token_set
from easel_router.xds.auth import keys

DEFAULT = Token(value="one")


def test_all_of_controls_tokens_are_kept() -> None:
    """The default comes first; each further one with its expiry and limit."""
    more = [NamedToken(name="partner", value="two", expires_unix_s=9, rate_limit_qps=5)]
    found = token_set(TokenOf(service="ocr", token="one", version=3, more=more))

    assert found.version == 3
    assert found.tokens == (DEFAULT, Token(name="partner", value="two", expires_unix_s=9, rate_limit_qps=5))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((), {"token": "one"}),
        ((Token(name="b", value="two"),), {"tokens": "0 - one\n0 - two"}),
        ((Token(name="b", value="two", expires_unix_s=9),), {"tokens": "0 - one\n9 - two"}),
        ((Token(name="b", value="two", rate_limit_qps=5),), {"tokens": "0 default one\n0 b two"}),
    ],
)
def test_names_are_told_only_where_one_is_limited(more: tuple[Token, ...], told: dict[str, str]) -> None:
    """One token without either is the plain case."""
    assert keys((DEFAULT, *more)) == told


def test_the_tokens_of_a_group_have_names_of_their_own() -> None:
    """So that a member's limit for its own token of that name is not taken for theirs."""
    limited = Token(name="b", value="two", rate_limit_qps=5)

    assert keys((DEFAULT, limited), group="vision") == {"tokens": "0 vision/default one\n0 vision/b two"}


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ((), "without a token"),
        ((Token(value=""),), "is empty"),
        ((DEFAULT, Token(name="b", value="a\n0 - other")), "visible ASCII"),
        ((DEFAULT, Token(name="a b", value="x")), "visible ASCII"),
        ((DEFAULT,), ""),
    ],
)
def test_what_would_let_strangers_in_is_refused(tokens: tuple[Token, ...], problem: str) -> None:
    """Control admits none of these; the router would send none of them to Envoy."""
    found = list(token_problems("ocr", tokens))

    assert (len(found) == 1 and problem in found[0]) if problem else not found
