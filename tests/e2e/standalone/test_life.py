"""The whole platform's life: as an ordinary user, with TLS, down and up again. Faults: tests/e2e/test_faults.py."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from easel_kit.testing import free_port
from easel_standalone import api
from easel_standalone.stores.postgres import SHIM

SERVER = """
import http.server, os
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ["PORT"]), bind="127.0.0.1")
"""


def _service(directory: Path) -> Path:
    code = directory / "code"
    code.mkdir()
    (code / "server.py").write_text(SERVER)
    file = directory / "service.json"
    file.write_text(
        json.dumps(
            {
                "name": "plain", "metadata": {"instance": 1, "cpu": 0.1, "memory": 128},
                "storage": [{"mount_path": "/code", "local": {"path": str(code)}}],
                "containers": [{"command": "python3 /code/server.py", "port": 8000}],
            }
        )
    )  # fmt: skip
    return file


def _easel(home: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> Any:
    """`easel ...`; its JSON where it prints some."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EASEL_")}
    command = [*prefix, str(Path(sys.executable).parent / "easel"), "--home", str(home), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout) if "json" in arguments else done.stdout


def _family(home: Path) -> list[psutil.Process]:
    supervisor = psutil.Process(api.status(home).pid)
    return [supervisor, *supervisor.children(recursive=True)]


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _get(url: str, token: str, context: ssl.SSLContext | None = None) -> int:
    request = urllib.request.Request(url, headers={"Authorization": token})
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        return int(answer.status)


@pytest.mark.timeout(180)
def test_ordinary_user_has_it_all(short_path: Path) -> None:
    """Up, a service, a call, down: without root, without a capability; nothing is left."""
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        # Root gives itself up: nobody, in a user namespace where the caller's files are nobody's.
        prefix = (sys.executable, "-I", "-S", str(SHIM), "--as-nobody", "--")
    home = short_path / "home"
    ports = ("--port", str(free_port()), "--control-port", str(free_port()))
    _easel(home, "up", "--detach", *ports, prefix=prefix)
    try:
        family = _family(home)
        _easel(home, "create", str(_service(short_path)), "--wait", "--timeout", "60", prefix=prefix)
        service = _easel(home, "desc", "plain", "-o", "json", prefix=prefix)

        assert _get(service["endpoint"] + "/", service["token"]) == 200
        replaced = _easel(home, "gateway", "restart", "-o", "json", prefix=prefix)
        assert [r["how"] for r in replaced] == ["handed over"]
        assert _get(service["endpoint"] + "/", service["token"]) == 200
        uids = {p.uids().real for p in family}
        assert len(uids) == 1
    finally:
        family = _family(home)
        _easel(home, "down", prefix=prefix)
    assert not [p for p in family if _alive(p)]


@pytest.mark.timeout(180)
def test_with_tls_then_down_then_up_again(short_path: Path) -> None:
    """Both listeners speak TLS only, a renewed certificate too; a clean stop leaves nothing; services come back."""
    certificate, key = _certificate(short_path)
    home = short_path / "home"
    wanted = api.Options(
        port=free_port(), control_port=free_port(), host="0.0.0.0", tls_cert=str(certificate), tls_key=str(key)
    )
    status = api.up_detached(home, wanted)
    try:
        _easel(home, "create", str(_service(short_path)), "--wait", "--timeout", "60")
        token = _easel(home, "desc", "plain", "-o", "json")["token"]
        url = f"https://127.0.0.1:{wanted.port}/api/predict/plain/"
        trusting = ssl.create_default_context(cafile=str(certificate))

        assert status.control_url.startswith("https://")
        assert _get(url, token, trusting) == 200
        with pytest.raises(OSError, match=r"(?i)reset|remote|disconnect|closed|refused|EOF"):
            _get(url.replace("https", "http"), token)

        before = ssl.get_server_certificate(("127.0.0.1", wanted.port or 0))
        _certificate(short_path)
        _easel(home, "gateway", "restart")
        renewed = ssl.get_server_certificate(("127.0.0.1", wanted.port or 0))
        assert renewed.strip() == certificate.read_text().strip() != before.strip()

        family = _family(home)
        assert api.down(home)
        assert not [p for p in family if _alive(p)]
        assert api.status(home).phase == "stopped"

        api.up_detached(home, api.Options())
        _easel(home, "w", "plain", "-o", "json")
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert _get_until_served(url, token, trusting) == 200
    finally:
        api.down(home)


def _get_until_served(url: str, token: str, context: ssl.SSLContext) -> int:
    """The answer once the replica is back: until then the gateway says 503."""
    deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    while True:
        try:
            return _get(url, token, context)
        except urllib.error.HTTPError as error:
            if error.code != 503 or datetime.datetime.now(datetime.UTC) > deadline:
                raise


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "easel test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(os.uname().nodename), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "cert.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
