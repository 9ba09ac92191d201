"""The systemd unit of a node: text only. What each hardening line is for stands in it.

`MemoryDenyWriteExecute` and `PrivateDevices` are left out on purpose: CUDA compiles kernels at run
time and needs /dev/nvidia*. A user's manager may not set up mounts and users of its own, so a user
unit has only the lines that need no such right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

UNIT_NAME: Final = "assay-node.service"
Scope = Literal["user", "system"]

_FOR_ALL: Final = """\
# A machine is lent, not given: whatever its owner runs comes first.
Nice=10
IOSchedulingClass=idle
UMask=0077
# Nothing the node is sent can gain a right it was not started with.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
"""
_FOR_SYSTEM: Final = """\
# A user that exists while it runs; key, receipts and models are in /var/lib/assay-node.
DynamicUser=yes
StateDirectory=assay-node
StateDirectoryMode=0700
CacheDirectory=assay-node
Environment=ASSAY_NODE_DATA_DIR=/var/lib/assay-node ASSAY_CACHE=/var/cache/assay-node
CapabilityBoundingSet=
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
SystemCallFilter=@system-service
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """What differs between units. `command` starts the node; times in seconds."""

    command: Sequence[str]
    folder: str  # paths of the configuration are relative to it
    scope: Scope
    stop_seconds: int  # the longest drain


def render(unit: Unit) -> str:
    """The unit file."""
    target = "default.target" if unit.scope == "user" else "multi-user.target"
    hardening = _FOR_ALL + (_FOR_SYSTEM if unit.scope == "system" else "")
    return f"""\
[Unit]
Description=Assay node: serves models to the network
After=network-online.target
Wants=network-online.target

[Service]
# The node says when it serves; before that it may fetch a model for hours.
Type=notify
ExecStart={" ".join(_word(word) for word in unit.command)}
WorkingDirectory={unit.folder.replace("%", "%%")}
TimeoutStartSec=infinity
# SIGTERM drains: running answers finish, receipts are delivered, answers under audit are shown.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec={unit.stop_seconds}
Restart=on-failure
RestartSec=10
# Wrong usage or configuration does not mend itself.
RestartPreventExitStatus=2
{hardening}
[Install]
WantedBy={target}
"""


def _word(text: str) -> str:
    """One argument of ExecStart as systemd reads it: quoted, without its own expansions."""
    for special, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        text = text.replace(special, written)
    return f'"{text}"'
