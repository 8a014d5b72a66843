"""What the user asked for at `easel up`, joined with what the home already has.

Decides the listeners. Refuses to open them to others without TLS or an explicit --insecure.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from easel_contracts.errors import FieldError, InvalidInput
from easel_standalone.home import MOST_GATEWAYS, Config, is_loopback, listening, with_urls


class Options(Struct, frozen=True, kw_only=True):
    """Arguments of `easel up`; None keeps what the home has."""

    port: int | None = None
    control_port: int | None = None
    web_port: int | None = None
    host: str | None = None
    insecure: bool | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    gateways: int | None = None
    start_timeout_s: float = 60.0
    restored: bool = False
    """The home's data comes from a backup: this start raises the epoch."""


def join(config: Config, options: Options) -> Config:
    """The config to run with. Raises InvalidInput listing everything that is wrong."""
    joined = msgspec.structs.replace(config, **_given(options))
    if is_loopback(joined.host):
        # Going back to this machine only takes the permission with it.
        joined = msgspec.structs.replace(joined, insecure=False)
    problems = [*_ports(joined), *_gateways(joined), *_listeners(joined)]
    if problems:
        raise InvalidInput("; ".join(p.message for p in problems), tuple(problems), hint=problems[0].hint)
    return with_urls(joined)


def changed(config: Config, options: Options) -> str:
    """What a platform runs with that is not what is asked for, as options; empty where nothing differs."""
    return ", ".join(
        f"--{name.replace('_', '-')} {present}" if present else f"no --{name.replace('_', '-')}"
        for name, wanted in _given(options).items()
        if (present := getattr(config, name)) != wanted
    )


def _given(options: Options) -> dict[str, Any]:
    """Of what the home keeps, what was given."""
    kept = ("port", "control_port", "web_port", "host", "insecure", "tls_cert", "tls_key", "gateways")
    given = {name: value for name in kept if (value := getattr(options, name)) is not None}
    for name in ("tls_cert", "tls_key"):
        if given.get(name):
            given[name] = str(Path(given[name]).expanduser().resolve())
    return given


def _ports(config: Config) -> list[FieldError]:
    found, seen = [], dict[int, str]()
    for option, port in listening(config).values():
        if not 1 <= port <= 65535:
            allowed = "0 (no such listener), or 1 to 65535" if option == "--web-port" else "1 to 65535"
            message = f"{option} {port} is not a port"
            found.append(FieldError(path=option, code="OUT_OF_RANGE", message=message, hint=allowed))
        elif port in seen:
            message = f"{seen[port]} and {option} are both {port}"
            found.append(FieldError(path=option, code="INVALID", message=message, hint="give them different ports"))
        seen[port] = option
    return found


def _gateways(config: Config) -> list[FieldError]:
    if 1 <= config.gateways <= MOST_GATEWAYS:
        return []
    return [
        FieldError(
            path="--gateways", code="OUT_OF_RANGE", message=f"--gateways {config.gateways} is not possible",
            hint=f"1 to {MOST_GATEWAYS}: each is an Envoy with one worker thread",
        )
    ]  # fmt: skip


def _listeners(config: Config) -> list[FieldError]:
    if bool(config.tls_cert) != bool(config.tls_key):
        return [
            FieldError(
                path="--tls-cert", code="MISSING", message="--tls-cert and --tls-key belong together",
                hint="give both, as PEM files",
            )
        ]  # fmt: skip
    if config.tls_cert:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_cert, config.tls_key)
        except (OSError, ssl.SSLError) as error:
            return [
                FieldError(
                    path="--tls-cert", code="INVALID",
                    message=f"{config.tls_cert} and {config.tls_key} cannot be used: {error}",
                    hint="a PEM certificate chain and its PEM private key, without a passphrase",
                )
            ]  # fmt: skip
    elif not is_loopback(config.host) and not config.insecure:
        return [
            FieldError(
                path="--host", code="NOT_SAFE",
                message=f"--host {config.host} lets other machines in, and access keys would travel in the clear",
                hint="add --tls-cert FILE --tls-key FILE, or --insecure where the network itself is trusted",
            )
        ]  # fmt: skip
    return []
