"""`assay init coordinator` (also `coordinator init`): a key, a policy to fill in, a catalogue."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import Final

from assay_coordinator.policy_file import policy_defaults
from assay_network.config_files import as_toml, write_new
from assay_network.identity import peer_text
from assay_network.keystore import load_or_create_key
from assay_protocol.signing import Identity

HEAD: Final = """The policy of a coordinator. Times in microseconds, money in micro-credits,
shares in hundredths of a percent (bps). What each key means: core/policy.py"""


def init_coordinator(args: argparse.Namespace) -> int:
    """Write them; a policy that is there is not overwritten, a key that is there is kept."""
    data_dir = args.data_dir.expanduser()
    policy = data_dir / "policy.toml"
    given = {} if args.faucet is None else {"faucet": args.faucet}
    write_new(policy, as_toml(policy_defaults(), given, HEAD))
    (data_dir / "catalogue").mkdir(exist_ok=True)
    key = Identity(load_or_create_key(data_dir / "coordinator.key")).public_key
    start = f"coordinator start --data-dir {shlex.quote(str(data_dir))}"
    then = [
        f"cp MODEL.card {shlex.quote(str(data_dir / 'catalogue'))}/",
        f"{start} --policy {shlex.quote(str(policy))} --operator YOUR_ACCOUNT_KEY",
    ]
    fields = {"policy": str(policy), "key": key.hex(), "peer": peer_text(key)}
    if args.json:
        print(json.dumps(fields | {"then": then}))
    else:
        print("\n".join([f"{name} {value}" for name, value in fields.items()] + ["then:", *then]))
    return 0
