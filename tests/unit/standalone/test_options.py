"""Arguments of `easel up` joined with what the home has."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from easel_contracts.errors import InvalidInput
from easel_standalone.home import Config
from easel_standalone.options import Options, join

CONFIG = Config(created=datetime(2026, 1, 1, tzinfo=UTC), port=9090)


def test_home_is_kept_where_nothing_is_given() -> None:
    """Ports are chosen once."""
    joined = join(CONFIG, Options(control_port=9191))

    assert (joined.port, joined.control_port) == (9090, 9191)
    assert joined.control_url == "http://127.0.0.1:9191"
    assert joined.data_url == "http://127.0.0.1:9090"


def test_open_listener_needs_tls_or_insecure() -> None:
    """Access keys must not travel in the clear by accident."""
    with pytest.raises(InvalidInput, match=r"0\.0\.0\.0") as refused:
        join(CONFIG, Options(host="0.0.0.0"))

    assert "--tls-cert" in refused.value.hint
    assert join(CONFIG, Options(host="0.0.0.0", insecure=True)).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (Options(port=0), "--port"),
        (Options(port=70000), "--port"),
        (Options(port=5000, control_port=5000), "--control-port"),
        (Options(tls_cert="/nowhere.pem"), "--tls-cert"),
        (Options(tls_cert="/nowhere.pem", tls_key="/nowhere.key"), "--tls-cert"),
    ],
)
def test_bad_options_name_the_option(options: Options, path: str) -> None:
    """Each refusal says which option and what is allowed."""
    with pytest.raises(InvalidInput) as refused:
        join(CONFIG, options)

    assert path in [field.path for field in refused.value.fields]
    assert all(field.hint for field in refused.value.fields)


def test_all_errors_at_once() -> None:
    """One answer lists everything."""
    with pytest.raises(InvalidInput) as refused:
        join(CONFIG, Options(port=0, control_port=-1, host="0.0.0.0"))

    assert {field.path for field in refused.value.fields} == {"--port", "--control-port", "--host"}


def test_permission_ends_when_the_host_is_closed_again() -> None:
    """--insecure is not remembered beyond the listener it was given for."""
    opened = join(CONFIG, Options(host="0.0.0.0", insecure=True))

    closed = join(opened, Options(host="127.0.0.1"))

    assert not closed.insecure
    with pytest.raises(InvalidInput):
        join(closed, Options(host="0.0.0.0"))
