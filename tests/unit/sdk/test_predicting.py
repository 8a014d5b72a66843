"""What an error answer means: whose it is, and what to do."""

from __future__ import annotations

import httpx
import pytest

from easel_sdk.predicting import Held, explain_answer, held_of, held_words, make_call


def test_a_models_own_404_is_not_blamed_on_the_gateway() -> None:
    """The gateway's 404 has a hint of its own; any other is the model's: path and log, not the route."""
    call = make_call("ocr", path="/v2")
    models = explain_answer(call, httpx.Response(404), b'{"detail": "Not Found"}', 0.1)
    gateways = explain_answer(call, httpx.Response(404), b'{"code": "NotFound", "hint": "`easel ls` lists all"}', 0.1)

    assert models.message == "ocr answered 404: Not Found"
    assert "the model's server has nothing at /v2" in models.hint
    assert "route" not in models.hint
    assert gateways.hint == "`easel ls` lists all"


@pytest.mark.parametrize(
    ("headers", "held", "words"),
    [
        ({}, None, ""),
        ({"Easel-Queue-Position": "many"}, None, ""),
        ({"easel-queue-position": "2"}, Held(2, None), "as number 2 in the queue"),
        ({"Easel-Queue-Position": "2", "Easel-Expected-Wait-Seconds": "0.5"}, Held(2, 0.5),
         "as number 2 in the queue, 0.5 s expected"),
    ],
)  # fmt: skip
def test_how_it_was_held(headers: dict[str, str], held: Held | None, words: str) -> None:
    """Only what the gateway says; a wait that is not known is not zero."""
    assert held_of(headers) == held
    assert held is None or held_words(held) == words


def test_when_to_come_again_is_said_with_the_hint() -> None:
    """Seconds, or a date as it stands."""
    call = make_call("ocr")
    body = b'{"code": "Hopeless", "message": "replicas of ocr crash", "hint": "`easel logs ocr`"}'
    seconds = explain_answer(call, httpx.Response(503, headers={"Retry-After": "30"}), body, 0.1)
    date = explain_answer(call, httpx.Response(429, headers={"Retry-After": "Thu, 01 Jan 2032 00:00:00 GMT"}), b"", 0.1)

    assert (seconds.code, seconds.message) == ("Hopeless", "ocr answered 503: replicas of ocr crash")
    assert seconds.hint == "`easel logs ocr`; Retry-After: 30 s"
    assert date.hint.endswith("; Retry-After: Thu, 01 Jan 2032 00:00:00 GMT")
