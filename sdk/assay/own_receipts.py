"""What a node kept of its work: its receipts, straight from its store or as it exported them.

The store is opened read-only, so a running node is not disturbed. Only files are read here; the
node's own code is not needed.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, Final

from assay.cli import load
from assay_protocol.errors import AssayError

KEY_FILE: Final = "node.key"
RECEIPTS_FILE: Final = "receipts.sqlite"
BUSY_SECONDS: Final = 5.0
_QUERY: Final = "select ticket, receipt, ack, ticket_blob from receipts order by saved_at, ticket"


def default_folder() -> Path:
    """Where a node of this user keeps its data unless told otherwise."""
    import platformdirs

    return Path(platformdirs.user_data_dir("assay")) / "node"


def kept_in(folder: Path) -> tuple[Any, ...]:
    """Every receipt in a node's store, oldest first. Raises AssayError: "config_invalid" if there
    is no store, "storage_failed" if it cannot be read."""
    path = folder.expanduser() / RECEIPTS_FILE
    if not path.exists():
        raise AssayError("config_invalid", f"no receipts at {path}")
    kept = load("assay_contracts.credit.own", "contracts").Kept
    try:
        where = f"{path.resolve().as_uri()}?mode=ro"
        store = sqlite3.connect(where, uri=True, timeout=BUSY_SECONDS)
        try:
            return tuple(kept(*row) for row in store.execute(_QUERY))
        finally:
            store.close()
    except sqlite3.Error as error:
        raise AssayError("storage_failed", f"{path}: {error}") from error


def kept_of(exported: str) -> tuple[Any, ...]:
    """The receipts that `node credit receipts` printed; raises AssayError("malformed")."""
    kept = load("assay_contracts.credit.own", "contracts").Kept
    try:
        rows = [json.loads(line) for line in exported.splitlines()]
        return tuple(kept(*(_blob(row, name) for name in kept.__slots__)) for row in rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AssayError("malformed", "not a file of exported receipts") from error


def seed_in(folder: Path) -> bytes:
    """The node's seed. Raises AssayError: "config_invalid" if there is no key, or as `load_key`."""
    from assay_network.keystore import load_key

    path = folder.expanduser() / KEY_FILE
    try:
        return load_key(path)
    except FileNotFoundError as error:
        raise AssayError("config_invalid", f"no key at {path}") from error


def key_in(folder: Path) -> bytes:
    """The node's account: its public key."""
    from nacl.bindings.crypto_sign import crypto_sign_seed_keypair

    return bytes(crypto_sign_seed_keypair(seed_in(folder))[0])


def _blob(row: dict[str, Any], name: str) -> bytes | None:
    """A blob in hex; only what may be absent may be none."""
    if name in ("ack", "ticket_blob") and row.get(name) is None:
        return None
    return bytes.fromhex(row[name])
