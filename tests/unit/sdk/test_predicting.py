"""What an error answer means: whose it is, and what to do."""

from __future__ import annotations

import httpx

from easel_sdk.predicting import explain_answer, make_call


def test_a_models_own_404_is_not_blamed_on_the_gateway() -> None:
    """The gateway's 404 has a hint of its own; any other is the model's: path and log, not the route."""
    call = make_call("ocr", path="/v2")
    models = explain_answer(call, httpx.Response(404), b'{"detail": "Not Found"}', 0.1)
    gateways = explain_answer(call, httpx.Response(404), b'{"code": "NotFound", "hint": "`easel ls` lists all"}', 0.1)

    assert models.message == "ocr answered 404: Not Found"
    assert "the model's server has nothing at /v2" in models.hint
    assert "route" not in models.hint
    assert gateways.hint == "`easel ls` lists all"
