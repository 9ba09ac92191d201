"""`assay receipt show|verify FILE`: what speaks for each answer, and its replay with the model.

`verify` makes the offline checks of `assay verify`; with --model it also draws every token again,
which needs the `verify` extra and as long as reading prompt and answer once.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from assay.cli import FAILED, OK, key_of, print_json, printable
from assay.records import ReceiptRecord, read_records
from assay.standing import standing_of
from assay.steps import Verification
from assay.verify import replay, verify
from assay.verify_command import print_steps


def show(options: argparse.Namespace) -> int:
    """Print each record's statement; exit 1 if a signature or hash in it does not hold."""
    records = read_records(options.file.read_bytes())
    checks = [verify(record) for record in records]
    if options.json:
        print_json([_summary(one, check) for one, check in zip(records, checks, strict=True)])
    for number, (record, check) in enumerate(zip(records, checks, strict=True), 1):
        if options.json:
            break
        print(f"receipt {number}: {'holds' if check.ok else 'DOES NOT HOLD'}")
        for line in statement(record) if check.ok else check.failed:
            print(f"  {printable(line)}")
    return OK if all(check.ok for check in checks) else FAILED


def verify_file(options: argparse.Namespace) -> int:
    """Check every record, and replay it if the model is there; exit 0 only if all hold."""
    key = key_of(options.coordinator) if options.coordinator else None
    results = []
    for record in read_records(options.file.read_bytes()):
        result = verify(record, key)
        if options.model and result.ok:
            about = {"threads": options.threads, "projector": options.projector}
            replayed = replay(record, options.model, **about)
            result = Verification(replayed.ok, (*result.steps, *replayed.steps), result.price)
        results.append(result)
    if options.json:
        print_json([asdict(result) for result in results])
    else:
        for number, result in enumerate(results, 1):
            print_steps(number, result)
    return OK if all(result.ok for result in results) else FAILED


def statement(record: ReceiptRecord) -> tuple[str, ...]:
    """What a record's standing lets one say, one sentence each."""
    return standing_of(record).lines


def _summary(record: ReceiptRecord, check: Verification) -> dict[str, Any]:
    standing = standing_of(record) if check.ok else None
    return {
        "ok": check.ok,
        "standing": asdict(standing) if standing else None,
        "bad_share_most": standing.bad_share_most if standing else None,
        "statement": list(standing.lines) if standing else [],
    }
