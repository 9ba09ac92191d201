"""`assay credit verify|show`: one account's credit, checked against the chain by this machine.

The checks are those of assay_contracts, handed over to as the umbrella hands over to `node`: the
SDK itself does not depend on the chain's package.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import asdict
from typing import Any, Final

from assay.cli import FAILED, OK, load, print_json
from assay.verify_command import MARKS, key_of
from assay_protocol.credit_tree import CreditLine
from assay_protocol.errors import AssayError

RECEIPT_LINE: Final = "job"  # the kind of a line that stands for a booked receipt


def verify(options: argparse.Namespace) -> int:
    """Every step from receipts to the root on chain; exit 0 only if all hold."""
    bundle = _bundle(options)
    own = _own_lines(bundle, options.receipts.read_text()) if options.receipts else None
    ledger = None
    if options.ledger:
        with contextlib.suppress(ValueError):
            ledger = bytes.fromhex(options.ledger.removeprefix("0x"))
        if ledger is None:
            raise AssayError("config_invalid", f"not an address: {options.ledger!r}")
    report = _checks().verify_bundle(bundle, _chain(options.chain), own, ledger=ledger)
    if options.json:
        print_json(asdict(report))
    else:
        for step in report.steps:
            print(f"{MARKS[step.ok]:<7}  {step.name}: {step.detail}")
        print("the credit holds" if report.ok else "the credit DOES NOT HOLD")
    return OK if report.ok else FAILED


def show(options: argparse.Namespace) -> int:
    """Print what the bundle says, unchecked."""
    values = asdict(_bundle(options))
    if options.json:
        print_json(values)
        return OK
    for name, value in values.items():
        size = f"{len(value)} entries" if isinstance(value, list | tuple) else None
        text = value.hex() if isinstance(value, bytes) else value
        print(f"{name}: {size or text}")
    return OK


def _bundle(options: argparse.Namespace) -> Any:
    if options.bundle:
        return _checks().CreditBundle.decode(options.bundle.read_bytes())
    from assay.chat_command import connect

    with connect(options) as client:
        account = key_of(options.account) if options.account else None
        return _checks().CreditBundle.decode(client.credit_bundle(account))


def _own_lines(bundle: Any, exported: str) -> tuple[CreditLine, ...]:
    """The lines that one's own receipts, as `node credit receipts` writes them, must have.

    A line's job is recognised by its ticket and must be of the very receipt signed here. Jobs that
    are not in the bundle were booked in another epoch, or not at all: they are counted.
    """
    digest = _checks().receipt_digest
    own: dict[bytes, bytes] = {}
    for text in exported.splitlines():
        try:
            row = json.loads(text)
            own[bytes.fromhex(row["ticket"])] = digest(bytes.fromhex(row["receipt"]))
        except (ValueError, KeyError, TypeError) as error:
            raise AssayError("malformed", "not a file of exported receipts") from error
    lines = tuple(
        CreditLine(line.kind, line.id, own[line.id], line.amount)
        for line in bundle.lines
        if line.kind == RECEIPT_LINE and line.id in own
    )
    elsewhere = len(own) - len({line.id for line in lines})
    print(f"{elsewhere} of your receipts are not in epoch {bundle.epoch}", file=sys.stderr)
    return lines


def _chain(where: str) -> Any:
    if where.startswith(("http://", "https://")):
        return _checks().HttpChain(where)
    return _checks().FileChain(where)


def _checks() -> Any:
    return load("assay_contracts.verify", "contracts")
