"""`assay audit recheck`: draw the coordinator's audit lottery again and compare.

The checks are those of assay_contracts, handed over to as `assay credit` does. Rounds are fetched
and checked one at a time, in order; what they say is printed as it is found.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, Final

from assay.audit_records import verdict_step
from assay.cli import FAILED, MARKS, OK, load, print_json
from assay_protocol.errors import AssayError
from assay_protocol.messages import RoundDraws

ROUNDS_MAX: Final = 100_000  # of one run


def recheck(options: argparse.Namespace) -> int:
    """Exit 0 only if every round that was asked for holds."""
    numbers, poster = _numbers(options), _poster(options.poster)
    rounds = load("assay_contracts.credit.rounds", "contracts")
    reports = []
    with contextlib.closing(_chain(options.chain)) as chain, _connected(options) as client:
        checks = rounds.RoundChecks(chain, time.time_ns() // 1000, poster)
        for number, data in _published(numbers, client.round_draws):
            document = rounds.open_round(data, number)
            report = checks.check(document)
            if options.verdicts:
                report = _with_verdicts(report, document, client, options)
            reports.append(report)
            if not options.json:
                _print(reports[-1], options.verbose)
            elif sys.stderr.isatty():
                print(f"\r{len(reports)} rounds", end="", file=sys.stderr)
    ok = all(report.ok for report in reports)
    if options.json:
        print_json({"ok": ok, "rounds": [asdict(report) for report in reports]})
    else:
        print("the draws hold" if ok else "the draws DO NOT HOLD")
    return OK if ok else FAILED


def _published(numbers: range, document: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """The documents of rounds; of more than there are, those there are."""
    for number in numbers:
        try:
            data = document(number)
        except AssayError as error:
            if error.code == "unknown_round" and len(numbers) == ROUNDS_MAX and number > numbers[0]:
                return
            raise
        yield number, data


def _print(report: Any, verbose: bool) -> None:
    rest = "".join(
        f", {count} {what}"
        for count, what in (
            (report.unaudited, "found no auditor"),
            (report.waived, "waived by their clients"),
            (report.inquiries, "audited in inquiries"),
        )
        if count
    )
    word = "holds" if report.ok else "DOES NOT HOLD"
    print(f"round {report.number} {word}: {report.drawn} of {report.receipts} drawn{rest}")
    for step in report.steps:
        if verbose or not step.ok:
            print(f"  {MARKS[step.ok]:<7}  {step.name}: {step.detail}")


def _numbers(options: argparse.Namespace) -> range:
    """The rounds asked for: one, A..B, or A.. for all from A on."""
    text = options.rounds or (f"{options.round}..{options.round}" if options.round else "")
    first, dots, last = text.partition("..")
    if not (dots and first.isdigit() and (last.isdigit() or not last)) or not int(first):
        raise AssayError("config_invalid", "give a round's number from 1, or --rounds A..B or A..")
    end = int(last) + 1 if last else int(first) + ROUNDS_MAX
    numbers = range(int(first), end)
    if not 0 < len(numbers) <= ROUNDS_MAX:
        raise AssayError("config_invalid", f"1 to {ROUNDS_MAX} rounds")
    return numbers


def _with_verdicts(
    report: Any, document: RoundDraws, client: Any, options: argparse.Namespace
) -> Any:
    """The report with one step more: each verdict's record, fetched and checked."""
    key = load("assay.direct", "p2p").coordinator_key_of(options.coordinator)
    step = verdict_step(document, client.verdict_record, key)
    return replace(report, ok=report.ok and step.ok is True, steps=(*report.steps, step))


@contextlib.contextmanager
def _connected(options: argparse.Namespace) -> Iterator[Any]:
    from assay.chat_command import connect

    with connect(options) as client:
        yield client


def _chain(where: str) -> Any:
    readers = load("assay_contracts.credit.readers", "contracts")
    http = where.startswith(("http://", "https://"))
    return readers.HttpChain(where) if http else readers.FileChain(where)


def _poster(text: str | None) -> bytes:
    with contextlib.suppress(ValueError):
        poster = bytes.fromhex((text or "").removeprefix("0x"))
        if len(poster) in (0, 20):
            return poster
    raise AssayError("config_invalid", f"not an address: {text!r}")
