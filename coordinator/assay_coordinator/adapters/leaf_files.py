"""Leaf files where others fetch them: `<epoch>.leaves` in one folder, whole or not there at all.

The tables hold the same bytes and are the truth; the folder is what an operator serves and mirrors.
"""

from __future__ import annotations

from pathlib import Path

from assay_coordinator.adapters.store import Store, storage_errors
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.records import LeavesRow
from assay_network.durable import write_durably
from assay_protocol.errors import AssayError
from assay_protocol.leaf_file import LeafFile


def leaf_file(store: Store, epoch: int) -> LeafFile:
    """An epoch's leaves from the tables. Raises AssayError("proof_invalid") before it closes."""
    rows: list[LeavesRow] = store.rows(LeavesRow, TABLES[LeavesRow].c.epoch == epoch)
    if not rows:
        raise AssayError("proof_invalid", f"epoch {epoch} has not closed")
    return LeafFile(rows[0].data)


def leaves_document(store: Store, key: bytes) -> bytes:
    """The part "leaves"; `key` is the epoch as a big-endian number."""
    epoch = int.from_bytes(key)
    if epoch >> 32:
        raise AssayError("proof_invalid", "there is no such epoch")
    return leaf_file(store, epoch).raw


def publish(store: Store, folder: Path, epoch: int) -> Path:
    """Put the epoch's leaf file into `folder` and on disk (fsync), unless it is there.

    Raises AssayError("disk_full" or "storage_failed").
    """
    raw = leaf_file(store, epoch).raw
    path = folder / f"{epoch}.leaves"
    with storage_errors():
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_bytes() == raw:
            return path
        write_durably(path, raw)  # name and all, or the post could outlive the data
    return path
