"""Where a web application is reached by its host name."""

from __future__ import annotations

import pytest

from easel_control.views import web_endpoint_of


@pytest.mark.parametrize(
    ("web_url", "expected"),
    [
        ("http://localhost:8082", "http://ocr-app.localhost:8082/"),
        ("https://apps.example.com", "https://ocr-app.apps.example.com/"),
        ("https://apps.example.com:8443/", "https://ocr-app.apps.example.com:8443/"),
        ("http://127.0.0.1:8082", ""),
        ("http://[::1]:8082", ""),
        ("", ""),
    ],
)
def test_the_name_stands_before_the_host(web_url: str, expected: str) -> None:
    """Without underscores; before an address no name can stand."""
    assert web_endpoint_of("ocr_app", web_url) == expected
