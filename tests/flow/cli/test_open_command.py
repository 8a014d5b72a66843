"""`easel open`."""

from __future__ import annotations

import json
import re

from easel_proto.v1.services_pb2 import Service
from tests.flow.cli.conftest import Easel
from tests.flow.sdk.platform import Platform


def put(platform: Platform, web_endpoint: str = "", config: str = "") -> None:
    platform.services["ocr"] = Service(
        service_name="ocr", status="Running", token="tok", endpoint="http://127.0.0.1:8080/api/predict/ocr",
        web_endpoint=web_endpoint, service_config=config,
    )  # fmt: skip


def test_open_prints_a_link(platform: Platform, easel: Easel) -> None:
    """To the host name where the service has one; the description names it too."""
    put(platform, web_endpoint="http://ocr.localhost:8082/")
    printed = easel("open", "ocr", "--print", "--path", "/page").stdout
    assert re.fullmatch(r"http://ocr\.localhost:8082/page\?easel_link=\d+\.[\w-]{27}\n", printed)
    assert "WebEndpoint      http://ocr.localhost:8082/" in easel("desc", "ocr").stdout
    put(platform, config=json.dumps({"metadata": {"enable_webservice": True}}))

    assert easel("open", "ocr", "--print").stdout.startswith("http://127.0.0.1:8080/api/predict/ocr/?easel_link=")


def test_open_says_why_not(platform: Platform, easel: Easel) -> None:
    """No web application, an unknown service, a time that is none."""
    put(platform)
    refused = easel("open", "ocr", "--print")
    missing = easel("open", "nope", "--print")
    odd = easel("open", "ocr", "--print", "--ttl", "soon")

    assert [refused.exit_code, missing.exit_code, odd.exit_code] == [2, 3, 2]
    assert "metadata.enable_webservice" in refused.stderr
    assert "no service nope" in missing.stderr
    assert "--ttl" in odd.stderr
