"""The rules in force, in the node's folder, and compared with the chain if the owner names one.

The file is replaced as a whole and on disk before `keep` returns (D1), so a start obeys what the
last run obeyed, whatever the coordinator says then.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from assay_network.durable import write_durably
from assay_network.logs import get_logger
from assay_node.config import Settings
from assay_node.core.rules import Rules, Source
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.limits import MESSAGE_BYTES_MAX
from assay_protocol.messages import NetworkRules

RULES_FILE: Final = "rules.bin"

log = get_logger("node")

Compare = Callable[[NetworkRules], Awaitable[None]]
Keep = Callable[[bytes, NetworkRules], Awaitable[None]]


def load_rules(settings: Settings) -> Rules:
    """The rules of the last run, from the file; none if there are none, or they cannot be read."""
    source = Source(registry=bytes.fromhex(settings.registry) if settings.registry else None)
    path = settings.directory / RULES_FILE
    try:
        with path.open("rb") as file:
            return Rules(source, file.read(MESSAGE_BYTES_MAX + 1))
    except FileNotFoundError:
        return Rules(source)
    except (OSError, ProtocolError) as error:
        log.warning("rules_not_read", file=str(path), reason=str(error))
        return Rules(source)


def keeping(directory: Path, compare: Compare | None = None) -> Keep:
    """What makes rules durable, after `compare` had nothing against them.

    It raises AssayError: of `compare`, or disk_full or storage_failed.
    """

    async def keep(document: bytes, rules: NetworkRules) -> None:
        if compare is not None:
            await compare(rules)
        await trio.to_thread.run_sync(_write, directory / RULES_FILE, document)

    return keep


def _write(path: Path, document: bytes) -> None:
    try:
        write_durably(path, document)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise AssayError("disk_full" if full else "storage_failed", str(error)) from error
