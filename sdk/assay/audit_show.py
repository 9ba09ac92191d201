"""`assay audit show TICKET`: who found what about an answer, everything in it checked again.

The record comes from the coordinator, or from a file saved earlier. It holds no text and no tokens,
so it may be shown to anybody.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from assay.cli import FAILED, MARKS, OK, key_of, load, print_json, printable
from assay.steps import Verification
from assay.verdicts import check_record
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError
from assay_protocol.messages import Ticket, VerdictRecord
from assay_protocol.signing import peek


def show(options: argparse.Namespace) -> int:
    """Print every step; exit 1 if one does not hold, or the record is of another ticket."""
    ticket = ticket_of(options.ticket)
    record, coordinator = _from_file(options) if options.file else _fetched(options, ticket)
    if peek(Ticket, record.ticket).ticket != ticket:
        raise AssayError("unexpected_message", "the record is of another ticket")
    if options.save:
        options.save.write_bytes(encode(record))
    result = check_record(record, coordinator)
    if options.json:
        print_json({"outcome": record.outcome, **asdict(result)})
    else:
        _print(record, result)
    return OK if result.ok else FAILED


def ticket_of(text: str) -> bytes:
    """A ticket's id written as hex; raises AssayError("config_invalid")."""
    try:
        ticket = bytes.fromhex(text)
    except ValueError:
        ticket = b""
    if len(ticket) != 16:
        raise AssayError("config_invalid", f"a ticket is 32 hex digits, not {text!r}")
    return ticket


def _from_file(options: argparse.Namespace) -> tuple[VerdictRecord, bytes]:
    if not options.coordinator_key:
        raise AssayError("config_invalid", "a file needs --coordinator-key: who signed the tickets")
    record = decode_as(VerdictRecord, options.file.read_bytes())
    return record, key_of(options.coordinator_key)


def _fetched(options: argparse.Namespace, ticket: bytes) -> tuple[VerdictRecord, bytes]:
    with load("assay.chat_command", "p2p").connect(options) as client:
        record: VerdictRecord = client.verdict_record(ticket)
    if options.coordinator_key:
        return record, key_of(options.coordinator_key)
    return record, load("assay.direct", "p2p").coordinator_key_of(options.coordinator)


def _print(record: VerdictRecord, result: Verification) -> None:
    print(f"{printable(record.outcome)}: {'holds' if result.ok else 'DOES NOT HOLD'}")
    for step in result.steps:
        print(f"  {MARKS[step.ok]:<11}  {step.name}: {printable(step.detail)}")
