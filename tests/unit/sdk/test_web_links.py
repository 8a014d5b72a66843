"""Links to web applications: where they lead, and to what they are refused."""

from __future__ import annotations

import json

import pytest

from easel_contracts.errors import InvalidInput
from easel_proto.v1.services_pb2 import Service
from easel_sdk.web_links import web_link

WEB = json.dumps({"metadata": {"enable_webservice": True}})
ENDPOINT = "http://127.0.0.1:8080/api/predict/ocr_app"


def service(web_endpoint: str = "", config: str = WEB) -> Service:
    return Service(service_name="ocr_app", token="tok", endpoint=ENDPOINT, web_endpoint=web_endpoint,
                   service_config=config)  # fmt: skip


@pytest.mark.parametrize(
    ("web_endpoint", "path", "begins"),
    [
        ("", "/", f"{ENDPOINT}/?easel_link=1060."),
        ("http://ocr-app.localhost:8082/", "/", "http://ocr-app.localhost:8082/?easel_link=1060."),
        ("http://ocr-app.localhost:8082/", "/a/b?c=d", "http://ocr-app.localhost:8082/a/b?c=d&easel_link=1060."),
    ],
)
def test_a_link_leads_to_the_page(web_endpoint: str, path: str, begins: str) -> None:
    """By the host name where there is one; it ends at the time that was asked for."""
    made = web_link(service(web_endpoint), now_unix_s=1000.5, ttl_s=60, path=path)

    assert made.startswith(begins)
    assert len(made) == len(begins) + 27


def test_another_token_signs_otherwise() -> None:
    """And so does another time, or another service."""
    one = web_link(service(), now_unix_s=1000, ttl_s=60)
    other = service()
    other.token = "tok2"
    renamed = service()
    renamed.service_name = "ocr_app2"

    made = [web_link(s, now_unix_s=1000, ttl_s=60) for s in (other, renamed)]
    assert one[-27:] not in [link[-27:] for link in [*made, web_link(service(), now_unix_s=1001, ttl_s=60)]]


@pytest.mark.parametrize("config", ["", "{}", json.dumps({"metadata": {"enable_webservice": False}})])
def test_other_services_have_no_link(config: str) -> None:
    """The reason says what would make it one."""
    with pytest.raises(InvalidInput, match="no web application") as refused:
        web_link(service(config=config), now_unix_s=0, ttl_s=60)

    assert "metadata.enable_webservice" in refused.value.hint


@pytest.mark.parametrize(("ttl_s", "path"), [(0, "/"), (-5, "/"), (31 * 86_400, "/"), (60, "x"), (60, "/#a"), (60, "")])
def test_what_cannot_be_is_refused(ttl_s: float, path: str) -> None:
    """A time out of bounds, a path that is none."""
    with pytest.raises(InvalidInput) as refused:
        web_link(service(), now_unix_s=0, ttl_s=ttl_s, path=path)

    assert refused.value.hint


def test_a_time_that_is_too_long_is_told_in_plain_numbers() -> None:
    with pytest.raises(InvalidInput, match="cannot be good for 34560000 s") as refused:
        web_link(service(), now_unix_s=0, ttl_s=400 * 86_400)

    assert refused.value.hint == "1 to 2592000 s (30 days)"
