"""`node keys new|show|export|rotate`: the node's identity and right to its credit.

No key is ever overwritten or deleted: a rotated one stays beside the new one under its peer id.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assay_network.keystore import load_key, load_or_create_key, store_key
from assay_node.config import Settings, load_from_process
from assay_protocol.errors import AssayError
from assay_protocol.signing import Identity

Run = Callable[[argparse.Namespace], int]
AddCommand = Callable[[str, Run, str], argparse.ArgumentParser]


def add_keys_commands(add: AddCommand) -> None:
    """Add the commands with their flags; `add(name, run, text)` makes one."""
    export = add("export", _export, "copy the key to a new file of mode 0600")
    export.add_argument("file", type=Path)
    rotate = add("rotate", _rotate, "begin anew under another key; the old one is kept")
    rotate.add_argument(
        "--give-up-receipts", action="store_true", help="though some are not delivered yet"
    )
    shown = add("show", _show, "print the public key")
    for command in (add("new", _new, "make a key; refused if there is one"), shown, export, rotate):
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.add_argument("--data-dir", default=argparse.SUPPRESS)
        command.add_argument("--config", help="TOML file (or ASSAY_NODE_CONFIG)")


def _new(given: argparse.Namespace) -> int:
    path = _path(_settings(given))
    if path.exists():
        raise AssayError("key_invalid", f"{path} exists; a key is never replaced")
    load_or_create_key(path)
    return _show(given)


def _show(given: argparse.Namespace) -> int:
    path = _path(_settings(given))
    return _tell(given, {**_named(_load(path)), "file": str(path)})


def _export(given: argparse.Namespace) -> int:
    seed = _load(_path(_settings(given)))
    try:
        store_key(given.file, seed)
    except FileExistsError as error:
        raise AssayError("key_invalid", f"{given.file} exists; it is not replaced") from error
    except FileNotFoundError as error:
        raise AssayError("config_invalid", f"{given.file}: no such folder") from error
    return _tell(given, {**_named(seed), "file": str(given.file)})


def _rotate(given: argparse.Namespace) -> int:
    from assay_node.running import running_node

    settings = _settings(given)
    path = _path(settings)
    old = _load(path)
    if (pid := running_node(settings.directory)) is not None:
        raise AssayError("config_invalid", f"a node (pid {pid}) runs with this key; drain it first")
    owed = _receipts_owed(settings)
    if owed and not given.give_up_receipts:
        raise AssayError(
            "config_invalid",
            f"{owed} receipts of this key are not delivered: start the node until they are, or "
            "give them up with --give-up-receipts",
        )
    kept = path.with_name(f"{path.name}.{_named(old)['peer']}")
    if kept.exists():
        raise AssayError("key_invalid", f"{kept} exists; it is not replaced")
    path.rename(kept)
    made = _named(load_or_create_key(path))
    return _tell(given, {**made, "file": str(path), "old": str(kept)})


def _receipts_owed(settings: Settings) -> int:
    from assay_node.app import RECEIPTS_FILE
    from assay_node.store import ReceiptStore

    file = settings.directory / RECEIPTS_FILE
    if not file.exists():
        return 0
    store = ReceiptStore(file)
    try:
        return len(store.owed())
    finally:
        store.close()


def _load(path: Path) -> bytes:
    try:
        return load_key(path)
    except FileNotFoundError as error:
        raise AssayError("key_invalid", f"no key at {path}; `node keys new` makes one") from error


def _named(seed: bytes) -> dict[str, str]:
    """The public names of a key."""
    from assay_network.identity import peer_text

    key = Identity(seed).public_key
    return {"key": key.hex(), "peer": peer_text(key)}


def _tell(given: argparse.Namespace, fields: dict[str, str]) -> int:
    lines = [f"{name} {value}" for name, value in fields.items()]
    print(json.dumps(fields) if given.json else "\n".join(lines))
    return 0


def _path(settings: Settings) -> Path:
    from assay_node.app import KEY_FILE

    return settings.directory / KEY_FILE


def _settings(given: argparse.Namespace) -> Settings:
    flags: dict[str, Any] = {k: v for k, v in vars(given).items() if k in Settings.__slots__}
    return load_from_process(given.config, flags)
