"""The text of a systemd unit for a home, and telling systemd about us. Writes no file of the system."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from pathlib import Path


def unit(home: Path, *, as_root: bool) -> str:
    """A unit that keeps the platform up. The supervisor's death is an outage of seconds: systemd starts it again."""
    command = shlex.join([sys.executable, "-P", "-m", "easel_standalone", "--home", str(home)])
    target = "multi-user.target" if as_root else "default.target"
    where = "/etc/systemd/system/easel.service" if as_root else "~/.config/systemd/user/easel.service"
    user = "" if as_root else " --user"
    return f"""\
# Write this to {where}, then:
#   systemctl{user} daemon-reload && systemctl{user} enable --now easel
[Unit]
Description=Easel, model serving
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
# Reads renewed TLS files, without losing a request.
ExecReload={command} --replace-gateways
Restart=always
RestartSec=1
TimeoutStartSec=120
TimeoutStopSec=120
# The supervisor stops its processes in order; what is left after the timeout is killed.
KillMode=mixed
# Lets the agent limit replicas by cgroup.
Delegate=yes
LimitNOFILE=65536

[Install]
WantedBy={target}
"""


def notify(state: str) -> None:
    """Tells systemd (sd_notify); nothing where it did not start us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        notifier.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
