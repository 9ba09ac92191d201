"""On PYTHONPATH: a Python that reaches loopback and nothing else.

What it tried is written to the file ASSAY_TEST_REFUSED, too: a library may swallow the error.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any

_WITH_ADDRESS = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"}


def _watch(event: str, values: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        _check(event, values[0])
    elif event in _WITH_ADDRESS and isinstance(values[1], tuple):  # else of this machine, or none
        _check(event, values[1][0])


def _check(event: str, host: str | bytes | None) -> None:
    name = os.fsdecode(host or "localhost")
    try:
        inside = name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        inside = False
    if not inside:
        with open(os.environ["ASSAY_TEST_REFUSED"], "a") as file:
            file.write(f"{event} {name}\n")
        raise PermissionError(f"{event} {name}: beyond loopback")


sys.addaudithook(_watch)
