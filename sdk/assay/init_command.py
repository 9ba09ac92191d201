"""`assay init node|coordinator|client|gateway`: configuration and key of a role, and what is next.

Each role's own program writes its own files; here are only those of a client.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from assay.cli import OK, hand_over
from assay_network.config_files import config_path, write_new
from assay_network.keystore import load_or_create_key
from assay_network.typed_settings import data_folder
from assay_protocol.errors import AssayError
from assay_protocol.signing import Identity

ROLES: Final = ("node", "coordinator", "client", "gateway")


def main(argv: Sequence[str]) -> int:
    """Run one; what a role's program says and returns is its own."""
    if argv[:1] and argv[0] in ROLES and argv[0] != "client":
        return hand_over(argv[0], ["init", *argv[1:]])
    return _client(parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    """The flags of `assay init client`; the other roles have their own."""
    top = argparse.ArgumentParser(
        prog="assay init",
        description="Write the configuration and key of a role; nothing is overwritten.",
    )
    roles = top.add_subparsers(required=True, metavar="|".join(ROLES))
    for role in ROLES:
        one = roles.add_parser(role)
        if role == "client":
            one.add_argument("--coordinator", default=os.environ.get("ASSAY_COORDINATOR"))
            one.add_argument("--key", type=Path, help="default: in the user's data folder")
            one.add_argument("--config", type=Path, help="default: in the user's folder")
            one.add_argument("--json", action="store_true")
    return top


def _client(options: argparse.Namespace) -> int:
    """A key, and a file of the two variables that every `assay` command reads."""
    if not options.coordinator:
        raise AssayError("config_invalid", "give --coordinator or set ASSAY_COORDINATOR")
    key_file = options.key or data_folder("", "client.key")
    variables = {"ASSAY_COORDINATOR": options.coordinator, "ASSAY_KEY": str(key_file)}
    path = options.config or config_path(None, "client").with_suffix(".env")
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    write_new(path, "".join(lines))
    account = Identity(load_or_create_key(key_file)).public_key.hex()
    then = [f". {shlex.quote(str(path))}", "assay account", "assay chat"]
    fields = {"config": str(path), "key_file": str(key_file), "account": account}
    if options.json:
        print(json.dumps(fields | {"then": then}))
    else:
        print("\n".join([f"{name} {value}" for name, value in fields.items()] + ["then:", *then]))
    return OK
