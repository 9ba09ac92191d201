"""`assay init node` (also `node init`): a configuration and a key, and what to type next."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from assay_network.config_files import as_toml, config_path, write_new
from assay_network.keystore import load_or_create_key
from assay_network.typed_settings import defaults_of
from assay_node.config import Settings, load_settings
from assay_protocol.signing import Identity

HEAD = """A node of the Assay network. What each key means: docs/run-a-node.md, Configure.
Relative paths are relative to where the node is started."""


def init_node(given: argparse.Namespace) -> int:
    """Write both, unless there is a configuration already; a key that is there is kept."""
    from assay_node.app import KEY_FILE

    flags = {key: value for key, value in vars(given).items() if key in Settings.__slots__}
    settings = load_settings(None, {}, flags)  # refuses what `node start` would
    path = config_path(Path(given.config) if given.config else None, "node")
    write_new(path, as_toml(defaults_of(Settings), flags, HEAD))
    key_file = settings.directory / KEY_FILE
    key = Identity(load_or_create_key(key_file)).public_key.hex()
    named = f"--config {shlex.quote(str(path))}"
    then = [f"node {verb} {named}" for verb in ("doctor", "start", "service install")]
    if given.json:
        fields = {"config": str(path), "key_file": str(key_file), "key": key, "then": then}
        print(json.dumps(fields))
    else:
        print(f"config {path}\nkey {key} in {key_file}\nthen:")
        print("\n".join(then))
    return 0
