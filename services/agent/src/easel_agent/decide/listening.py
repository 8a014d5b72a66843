"""Decides whether a replica listens where it was told to, and explains what to change when it does not."""

from __future__ import annotations

from collections.abc import Sequence

from easel_agent.model import Listening, Refusal

ANY = frozenset({"0.0.0.0", "::"})


def where(address: str, wanted: int, declared: int, own: Sequence[Listening]) -> Refusal | None:
    """None when one of the sockets `own` accepts connections at `address`:`wanted`, else why not."""
    at_port = [socket for socket in own if socket.port == wanted]
    if any(socket.ip in ANY or socket.ip == address for socket in at_port):
        return None
    if at_port:
        ip = at_port[0].ip
        return Refusal(
            cause="wrong_port",
            message=f"The program listens on {ip}:{wanted}, which cannot be reached from the gateway; "
            f"bind 0.0.0.0 instead of {ip}.",
        )
    if not own:
        return Refusal(cause="probe", message=f"The program does not listen on any port yet; wanted {wanted} ($PORT).")
    bound = sorted({socket.port for socket in own})
    shown = ", ".join(str(port) for port in bound[:5])
    advice = (
        f"it uses the port declared in the spec instead of its own. Every replica gets a port of its own in the "
        f"environment variable PORT: use $PORT in the command (e.g. `--port $PORT` in place of `--port {declared}`), "
        "or read os.environ['PORT'] in the program"
        if declared in bound
        else "use the port in the environment variable PORT ($PORT in the command)"
    )
    return Refusal(cause="wrong_port", message=f"The program bound {shown}, wanted {wanted}: {advice}.")


def taken(wanted: int) -> Refusal:
    """The port answers, but the socket belongs to somebody else."""
    return Refusal(
        cause="wrong_port",
        message=f"Port {wanted} is answered by a process that is not part of this replica, so it does not count.",
    )
