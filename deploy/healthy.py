"""Exit code 0 when what listens at an address says that it is ready: the health check of every container.

    python -I -S easel-healthy http unix:/run/easel/health.sock     GET /ready answers 200
    python -I -S easel-healthy nats 127.0.0.1:4222                  the greeting says that JetStream is on

Uses nothing but the standard library's socket module: it runs every few seconds in each container.
"""

import socket
import sys

TIMEOUT_S = 3


def main(kind: str, address: str) -> int:
    """0: ready; 1: not, with what was answered on stderr."""
    try:
        with connected(address) as stream:
            if kind == "http":
                stream.sendall(b"GET /ready HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n")
            answer = stream.recv(4096)
    except OSError as error:
        print(f"{address}: {error}", file=sys.stderr)
        return 1
    ready = answer.startswith(b"HTTP/1.1 200") if kind == "http" else b'"jetstream":true' in answer
    if not ready:
        print(answer.decode(errors="replace"), file=sys.stderr)
    return 0 if ready else 1


def connected(address: str) -> socket.socket:
    """A connection to `unix:/path` or `host:port`."""
    if address.startswith("unix:"):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(TIMEOUT_S)
        stream.connect(address.removeprefix("unix:"))
        return stream
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
