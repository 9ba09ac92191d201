"""`coordinator moderation sign|show`: make a policy that governance can vote on, and read one.

What is signed is the list as it stands in the file, one phrase a line. Its sha256 goes on chain by
a proposal; the file goes to the coordinator (`start --moderation FILE`), which gives it to nodes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from assay_coordinator.core.rules import SignedPolicy
from assay_network.keystore import load_key
from assay_protocol.errors import AssayError
from assay_protocol.limits import PHRASE_BYTES_MAX, PHRASES_MAX
from assay_protocol.messages import ModerationPolicy
from assay_protocol.moderation import comparable, pack_policy, policy_digest, unpack_policy
from assay_protocol.signing import Identity

NAME_BYTES_MAX: Final = 128
VERSION_MAX: Final = 1 << 31


def sign(args: argparse.Namespace) -> int:
    """Write the policy file and print what a proposal has to name."""
    try:
        text = args.phrases.read_text(encoding="utf-8")
        seed = load_key(args.key)
    except (OSError, UnicodeDecodeError) as error:
        raise AssayError("config_invalid", f"{args.phrases}, {args.key}: {error}") from error
    policy = ModerationPolicy(
        name=_name(args.name),
        version=_version(args.version),
        issued_at=time.time_ns() // 1000,
        phrases=read_phrases(text),
    )
    file = pack_policy(Identity(seed), policy)
    try:
        args.output.write_bytes(file)
    except OSError as error:
        raise AssayError("storage_failed", f"{args.output}: {error.strerror}") from error
    return _print(file, args)


def show(args: argparse.Namespace) -> int:
    """Print what a policy file says, once its signature is checked."""
    return _print(_read(args.file), args)


def read_policy_file(path: Path) -> SignedPolicy:
    """The policy in a file. Raises AssayError("rules_invalid") naming the file."""
    try:
        author, blob, _ = unpack_policy(_read(path))
    except AssayError as error:
        raise AssayError("rules_invalid", f"{path}: {error.message}") from error
    return SignedPolicy(author, blob)


def read_phrases(text: str) -> tuple[str, ...]:
    """The lines that are not blank. Raises AssayError("config_invalid") naming the line."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        plain = comparable(line.strip())
        if not plain:
            continue
        if len(line.strip().encode()) > PHRASE_BYTES_MAX:
            raise AssayError("config_invalid", f"line {number}: over {PHRASE_BYTES_MAX} bytes")
        found.setdefault(plain, line.strip())
    if len(found) > PHRASES_MAX:
        raise AssayError("config_invalid", f"a policy has at most {PHRASES_MAX} phrases")
    return tuple(found.values())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AssayError("rules_invalid", f"{path}: {error.strerror}") from error


def _print(file: bytes, args: argparse.Namespace) -> int:
    author, blob, policy = unpack_policy(file)
    told: dict[str, Any] = {
        "name": policy.name,
        "version": policy.version,
        "issued_at": policy.issued_at,
        "author": author.hex(),
        "sha256": policy_digest(blob).hex(),
        "phrases": len(policy.phrases),
    }
    listed = list(policy.phrases) if getattr(args, "list", False) else []
    if args.json:
        print(json.dumps(told | ({"list": listed} if listed else {}), ensure_ascii=False))
        return 0
    for name, value in told.items():
        sys.stdout.write(f"{name} {value}\n")
    for phrase in listed:
        sys.stdout.write(f"  {phrase!r}\n")  # quoted: it must not steer a terminal
    return 0


def _name(name: str) -> str:
    if not 0 < len(name.encode()) <= NAME_BYTES_MAX:
        raise AssayError("config_invalid", f"a name has 1 to {NAME_BYTES_MAX} bytes")
    return name


def _version(version: int) -> int:
    if not 0 < version <= VERSION_MAX:
        raise AssayError("config_invalid", f"a version is in [1, {VERSION_MAX}]")
    return version
