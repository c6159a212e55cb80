"""`nightlens up` as a systemd service."""

import getpass
import sys
from pathlib import Path

from sqlalchemy.engine import make_url

from flows.service.up import UpOptions

__all__ = ["unit"]

TEMPLATE = """\
[Unit]
Description=nightlens: explains an image classifier every night
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
User={user}
ExecStart={command}
Restart=on-failure
RestartSec=30
# SIGTERM to `up` alone, which stops runs, worker and server in order; after two minutes whatever is left is killed.
KillMode=mixed
TimeoutStopSec=120
TimeoutStartSec=infinity
NoNewPrivileges=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def unit(options: UpOptions) -> str:
    """The unit that brings the same root up with the same options, as this user, at every boot.

    Raises ValueError for a database URL with a password: unit files are read by everybody.
    """
    arguments = [str(Path(sys.executable).with_name("nightlens")), "up", "--root", str(options.root)]
    for name in options.of_a_server():
        value = getattr(options, name.removeprefix("--").replace("-", "_"))
        if name == "--database" and make_url(value).password:
            raise ValueError(
                "--database: a unit file is read by everybody; leave the password to ~/.pgpass of its user"
            )
        arguments += [name, str(value)]
    return TEMPLATE.format(user=getpass.getuser(), command=" ".join(map(_quoted, arguments)))


def _quoted(argument: str) -> str:
    """As systemd reads it: %, $, quotes and backslashes are its own."""
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != argument or any(c in escaped for c in " '\t;") else escaped
