"""Arguments of `easel up` joined with what the home has."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from easel_contracts.errors import InvalidInput
from easel_standalone.home import Config
from easel_standalone.options import Options, changed, join

CONFIG = Config(created=datetime(2026, 1, 1, tzinfo=UTC), port=9090)


def test_home_is_kept_where_nothing_is_given() -> None:
    """Ports are chosen once."""
    joined = join(CONFIG, Options(control_port=9191, gateways=2))

    assert (joined.port, joined.control_port) == (9090, 9191)
    assert (CONFIG.gateways, join(joined, Options()).gateways) == (1, 2)
    assert joined.control_url == "http://127.0.0.1:9191"
    assert joined.data_url == "http://127.0.0.1:9090"


@pytest.mark.parametrize(
    ("options", "url"),
    [
        (Options(port=8080), "http://localhost:8082"),
        (Options(), ""),
        (Options(web_port=9999), "http://localhost:9999"),
        (Options(port=8080, web_port=0), ""),
        (Options(port=8080, host="0.0.0.0", insecure=True), "http://localhost:8082"),
        (Options(web_port=9999, host="192.0.2.7", insecure=True), "http://192.0.2.7:9999"),
    ],
)
def test_web_applications_have_a_listener_beside_the_default_port(options: Options, url: str) -> None:
    """Another port is mostly that of a second platform; there it must be asked for. localhost has names below it."""
    assert join(CONFIG, options).web_url == url


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
        (Options(web_port=9090), "--web-port"),
        (Options(web_port=-1), "--web-port"),
        (Options(web_port=70000), "--web-port"),
        (Options(gateways=0), "--gateways"),
        (Options(gateways=9), "--gateways"),
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


def test_what_differs_is_named_as_options() -> None:
    """A second `up` says what the running platform has instead."""
    running = join(CONFIG, Options(gateways=2))

    assert changed(running, Options(port=9090, gateways=2)) == ""
    assert changed(running, Options(port=9090, gateways=3)) == "--gateways 2"
    assert changed(running, Options(tls_cert="/a.pem", port=1)) == "--port 9090, no --tls-cert"


def test_permission_ends_when_the_host_is_closed_again() -> None:
    """--insecure is not remembered beyond the listener it was given for."""
    opened = join(CONFIG, Options(host="0.0.0.0", insecure=True))

    closed = join(opened, Options(host="127.0.0.1"))

    assert not closed.insecure
    with pytest.raises(InvalidInput):
        join(closed, Options(host="0.0.0.0"))


@pytest.mark.parametrize(
    ("certified", "name"), [(["models.example.org"], "models.example.org"), (["*.example.org"], gethostname())]
)
def test_open_listener_is_called_by_a_name_of_its_certificate(tmp_path: Path, certified: list[str], name: str) -> None:
    """Clients on this machine check the certificate too; a wildcard names no machine."""
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    write_certificate(cert, key, certified)

    joined = join(CONFIG, Options(host="0.0.0.0", tls_cert=str(cert), tls_key=str(key)))

    assert joined.control_url == f"https://{name}:8081"


def write_certificate(cert: Path, key: Path, names: list[str]) -> None:
    """A self-signed certificate for the names, and its private key."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2126, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(private, hashes.SHA256())
    )
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(private.private_bytes(*encoding))
