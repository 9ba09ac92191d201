"""`assay verify FILE`: the steps of offline verification, for people or as JSON."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from assay.cli import FAILED, MARKS, OK, key_of, print_json
from assay.records import read_records
from assay.steps import Verification
from assay.verify import verify
from assay_protocol.cards import decode_card


def verify_file(options: argparse.Namespace) -> int:
    """Check every record of the file on its own; exit 0 only if all hold."""
    key = key_of(options.coordinator) if options.coordinator else None
    card = decode_card(options.card.read_bytes()) if options.card else None
    results = [verify(record, key, card) for record in read_records(options.file.read_bytes())]
    if options.json:
        print_json([asdict(result) for result in results])
    else:
        for number, result in enumerate(results, 1):
            print_steps(number, result)
    return OK if all(result.ok for result in results) else FAILED


def print_steps(number: int, result: Verification) -> None:
    """One line for whether it holds, and one for each step."""
    print(f"receipt {number}: {'holds' if result.ok else 'DOES NOT HOLD'}")
    for step in result.steps:
        print(f"  {MARKS[step.ok]:<11}  {step.name}: {step.detail}")
