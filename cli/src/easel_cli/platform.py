"""`up down status doctor` and `gateway restart`: the platform on this machine.

Decides nothing about processes; easel_standalone does. Only these commands need it, so only they import it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Annotated, Any

import typer

from easel_cli.command import Session, command
from easel_cli.failure import FAILED, NO_PLATFORM

if TYPE_CHECKING:
    from easel_standalone.api import Status

PANEL = "Platform"
DISTRIBUTION = "easel-serving"
app = typer.Typer()
gateway_app = typer.Typer()

Port = Annotated[
    int | None, typer.Option("--port", metavar="N", help="Data listener, for calls (8080).", show_default=False)
]
ControlPort = Annotated[
    int | None, typer.Option("--control-port", metavar="N", help="Control listener (8081).", show_default=False)
]
WebPort = Annotated[
    int | None,
    typer.Option("--web-port", metavar="N", show_default=False,
                 help="Web applications by host name (8082 where --port is 8080, else none); 0: none."),
]  # fmt: skip


@command(app, "up", panel=PANEL, remote=False,
         example="easel up --detach\neasel up --home DIR --port 8080 --control-port 8081 --detach")  # fmt: skip
def up(
    cli: Session,
    port: Port = None,
    control_port: ControlPort = None,
    web_port: WebPort = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is ready.")] = False,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on (127.0.0.1).", show_default=False)
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option("--tls-cert", metavar="FILE", help="PEM chain of both listeners.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option("--tls-key", metavar="FILE", help="Its PEM private key.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow --host without TLS.")] = False,
    gateways: Annotated[
        int | None, typer.Option("--gateways", metavar="N", help="Envoys that share the ports (1).", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", help="Seconds to become ready.")] = 60.0,
    restored: Annotated[
        bool, typer.Option("--restored", help="The home's data was put back from a backup. Once, at the first start.")
    ] = False,
    print_systemd: Annotated[bool, typer.Option("--print-systemd", help="Only print a systemd unit.")] = False,
) -> None:
    """Starts the platform: all of its processes, supervised. What was chosen is kept in the home."""
    from easel_sdk.discovery import home_directory
    from easel_standalone import api

    home = home_directory(cli.home)
    if print_systemd:
        print(api.systemd_unit(home), end="")
        return
    wanted = api.Options(port=port, control_port=control_port, web_port=web_port, host=host,
                         tls_cert=tls_cert, tls_key=tls_key,
                         insecure=insecure or None, gateways=gateways, start_timeout_s=timeout,
                         restored=restored)  # fmt: skip
    if not detach:
        api.up_foreground(home, wanted)
    teller = _Teller()
    _say_ready(api.up_detached(home, wanted, on_progress=teller.tell), home)


@command(app, "down", panel=PANEL, remote=False, example="easel down\neasel down --home DIR")
def down(cli: Session) -> None:
    """Stops the platform and everything that it started; services come back with the next `up`."""
    from easel_cli.output import note
    from easel_sdk.discovery import home_directory, shown
    from easel_standalone import api

    home = home_directory(cli.home)
    if api.down(home):
        note(f"[OK] the platform at {shown(home)} is down")
    else:
        note(f"no platform runs at {shown(home)}")


@command(app, "status", panel=PANEL, output=True, remote=False, example="easel status\neasel status -o json")
def status(cli: Session) -> int:
    """Shows the platform's processes. Exit code 4 when none runs."""
    from easel_cli.output import note, show, table
    from easel_sdk.discovery import home_directory
    from easel_standalone import api

    home = home_directory(cli.home)
    found = api.status(home)
    code = NO_PLATFORM if found.phase == "stopped" else 0
    listed = [{"name": p.name, "pid": p.pid, "state": p.state, "restarts": p.restarts} for p in found.processes]
    if show(cli, listed, [p.name for p in found.processes]):
        return code
    if found.phase == "stopped":
        from easel_sdk.discovery import up_command

        note(f"{found.message}: `{up_command(home)}` starts one")
        return code
    print(f"{found.phase}  {found.message}".rstrip())
    print(f"control {found.control_url}   calls {found.data_url}   free disk {found.disk_free_mib} MiB")
    rows = [(p.name, p.state, p.pid, p.restarts, _duration(p.up_s), p.message) for p in found.processes]
    table(("PROCESS", "STATE", "PID", "RESTARTS", "UP", "MESSAGE"), rows)
    return code


@command(gateway_app, "restart", panel=PANEL, output=True, remote=False,
         example="easel gateway restart\neasel gateway restart --grace 3600")  # fmt: skip
def restart_gateways(
    cli: Session,
    grace: Annotated[
        float, typer.Option("--grace", metavar="S", help="Seconds for requests and streams that run now.")
    ] = 600.0,
) -> None:
    """Replaces each gateway's process without losing a request, e.g. to read renewed TLS files.

    Returns when the new processes take all calls; those before end when they have no connection left, or after --grace.
    """
    from easel_cli.output import note, show, table
    from easel_sdk.discovery import home_directory
    from easel_standalone import api

    done = api.replace_gateways(home_directory(cli.home), grace)
    listed = [{"gateway": r.gateway, "pid": r.pid, "how": r.how, "cut": r.cut} for r in done]
    if show(cli, listed, [r.gateway for r in done]):
        return
    table(("GATEWAY", "PID", "HOW", "CONNECTIONS CUT"), [(r.gateway, r.pid, r.how, r.cut) for r in done])
    note("`easel status` shows those that still finish requests")


@command(app, "doctor", panel=PANEL, output=True, remote=False, example="easel doctor")
def doctor(cli: Session) -> int:
    """Looks at the machine and the home: what is wrong, and what to do. Changes nothing."""
    from easel_cli.output import show
    from easel_sdk.discovery import home_directory
    from easel_standalone import api

    findings = api.doctor(home_directory(cli.home))
    code = FAILED if any(f.level == "error" for f in findings) else 0
    document = [{"check": f.check, "level": f.level, "message": f.message, "hint": f.hint} for f in findings]
    if show(cli, document, [f.check for f in findings if f.level != "ok"]):
        return code
    for finding in findings:
        print(f"{finding.level:<8} {finding.check:<10} {finding.message}")
        if finding.hint and finding.level != "ok":
            print(f"{'':<19} → {finding.hint}")
    return code


async def show_versions(cli: Session) -> None:
    """Prints the version of this command, and of the platform where one answers."""
    from easel_cli.output import pairs, show
    from easel_sdk.errors import EaselError

    found: dict[str, Any] = {"client": installed_version(), "server": None}
    try:
        async with cli.client() as client:
            found["server"] = (await client.services.info()).version
    except EaselError as error:
        found["why_no_server"] = error.message
    if not show(cli, found, [found["client"]]):
        pairs([("easel", found["client"]), ("platform", found["server"] or found["why_no_server"])])


def installed_version() -> str:
    """This distribution's version."""
    try:
        return version_of(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown: not installed as a package"


class _Teller:
    """Says each process's state once, while the platform starts."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def tell(self, found: Status) -> None:
        """Prints what is new."""
        from easel_cli.output import note

        for process in found.processes:
            if self._told.get(process.name) != process.state:
                self._told[process.name] = process.state
                why = f" ({process.message})" if process.message and process.state not in ("starting", "ready") else ""
                note(f"[..] {process.name}: {process.state}{why}")


def _say_ready(found: Status, home: Any) -> None:
    from easel_cli.output import note, pairs
    from easel_sdk.discovery import DEFAULT_HOME, home_directory, shown

    note(f"[OK] the platform is {found.phase}{f': {found.message}' if found.message else ''}")
    web = [("Web", found.web_url.replace("://", "://NAME."))] if found.web_url else []
    pairs([("Calls", found.data_url), ("Control", found.control_url), *web, ("Home", shown(home))])
    if home != home_directory(DEFAULT_HOME):
        note(f"other commands find it by `--home {shown(home)}` or `export EASEL_HOME={shown(home)}`")


def _duration(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02}m" if hours else f"{m}m{s:02}s" if m else f"{s}s"
