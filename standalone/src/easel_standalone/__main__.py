"""`python -m easel_standalone --home DIR`: the platform in the foreground, until SIGTERM, SIGINT or `easel down`.

With --replace-gateways: asks the one that runs there, for systemd's reload.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from easel_contracts.errors import EaselError
from easel_standalone import api, life
from easel_standalone.home import Home
from easel_standalone.logs import LogFile
from easel_standalone.options import Options
from easel_standalone.supervisor import Say


def main() -> int:
    """Exit code 0: stopped as asked; 1: could not start, with the reason on stderr."""
    arguments = _parser().parse_args()
    if arguments.replace_gateways:
        return _replace_gateways(arguments.home)
    home = Home(arguments.home)
    options = Options(
        port=arguments.port, control_port=arguments.control_port, web_port=arguments.web_port, host=arguments.host,
        insecure=arguments.insecure, tls_cert=arguments.tls_cert, tls_key=arguments.tls_key,
        gateways=arguments.gateways, start_timeout_s=arguments.timeout, restored=arguments.restored,
    )  # fmt: skip
    try:
        life.run(home, options, _into(home) if arguments.log_to_file else _say)
    except EaselError as error:
        if error.code != "ALREADY_UP":
            life.fail(home, error)
        print(f"easel up: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _replace_gateways(home: Path) -> int:
    try:
        for done in api.replace_gateways(home):
            _say(f"{done.gateway}: {done.how} to pid {done.pid}")
    except EaselError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)


def _into(home: Home) -> Say:
    """Says it in the supervisor's log, which is rotated as all others are."""
    log = LogFile(home.log("supervisor"))
    return lambda line: log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n".encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m easel_standalone", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path("~/.easel"), help="data directory (default: ~/.easel)")
    parser.add_argument("--port", type=int, help="data listener (default: 8080, or what the home has)")
    parser.add_argument("--control-port", type=int, help="control listener (default: 8081, or what the home has)")
    parser.add_argument("--web-port", type=int, help="web applications by host (default: 8082 beside 8080; 0: none)")
    parser.add_argument("--host", help="address the listeners bind (default: 127.0.0.1)")
    parser.add_argument("--insecure", action="store_const", const=True, help="allow --host without TLS")
    parser.add_argument("--tls-cert", help="PEM certificate chain of both listeners")
    parser.add_argument("--tls-key", help="PEM private key")
    parser.add_argument("--gateways", type=int, help="Envoys that share the ports (default: 1, or what the home has)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to become ready (default: 60)")
    parser.add_argument("--restored", action="store_true", help="the data comes from a backup: raise the epoch")
    parser.add_argument("--replace-gateways", action="store_true", help="give each gateway a new process, and end")
    parser.add_argument("--log-to-file", action="store_true", help="say what happens in logs/supervisor.log")
    return parser


if __name__ == "__main__":
    sys.exit(main())
