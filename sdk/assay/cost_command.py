"""`assay cost`: what was spent, for how many tokens, and what an upstream takes for them.

It reads what a gateway added up (gateway/usage.py) and the receipts that `assay chat` and `job
submit` kept. A receipt names its model by the digest of its file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from assay.cli import OK, USAGE, print_json, printable
from assay.gateway.usage import DAY_SECONDS, read_usage
from assay.records import ReceiptRecord, read_records
from assay.routing.core.costs import Cost, Line, added_up, beside
from assay.routing.core.plans import Routes
from assay.routing.file import read_routes
from assay_network.typed_settings import data_folder
from assay_protocol.errors import AssayError
from assay_protocol.messages import Receipt, Ticket
from assay_protocol.signing import peek


def cost(options: argparse.Namespace) -> int:
    """Print the costs of every model; exit code 2 if a file that was named is not what it should
    be, or there is none to read."""
    try:
        routes = read_routes(options.routes) if options.routes else Routes()
        costs = added_up(_spent(options))
    except (AssayError, OSError) as error:
        print(f"assay cost: {printable(str(error))}", file=sys.stderr)
        return USAGE
    lines = [beside(one, routes.upstreams, routes.credit_price) for one in costs]
    if options.json:
        print_json({"lines": [line.told() for line in lines]})
    else:
        _print(lines, routes)
    return OK


def _spent(options: argparse.Namespace) -> Iterator[Cost]:
    """Of the files that were named, or else of those that are there."""
    named = options.data is not None or bool(options.receipts)
    usage = [data_folder(options.data or "", "gateway") / "gateway.sqlite"]
    receipts = options.receipts or [data_folder("", "receipts")]
    if named:
        usage = usage if options.data is not None else []
        receipts = options.receipts or []
    else:
        usage = [path for path in usage if path.exists()]
        receipts = [path for path in receipts if path.exists()]
        if not usage and not receipts:
            raise AssayError("config_invalid", "nothing was kept here: give --data or --receipts")
    since = int(time.time()) // DAY_SECONDS - options.days + 1 if options.days else 0
    for path in usage:
        for one in read_usage(path, since):
            yield Cost(
                one.model, one.upstream, one.requests, one.tokens_in, one.tokens_out, one.credit,
                one.price,
            )  # fmt: skip
    for path in receipts:
        yield from _receipts(path, since)


def _receipts(path: Path, since: int) -> Iterator[Cost]:
    for record in read_records(path.read_bytes()):
        if peek(Receipt, record.receipt).ended_at // 1_000_000 >= since * DAY_SECONDS:
            yield _of_receipt(record)


def _of_receipt(record: ReceiptRecord) -> Cost:
    ticket, receipt = peek(Ticket, record.ticket), peek(Receipt, record.receipt)
    model = ticket.model.hex()[:16]
    return Cost(model, "", 1, receipt.n_in, receipt.n_out, record.credit)


def _print(lines: list[Line], routes: Routes) -> None:
    head = ["answered by", "model", "answers", "tokens in", "out", "paid", "for 1000"]
    compared = sorted({name for line in lines for name in line.elsewhere})
    rows = [head + [f"at {name}" for name in compared]]
    for line in lines:
        cost = line.cost
        unit = routes.upstreams[cost.upstream].currency if cost.upstream in routes.upstreams else ""
        paid = f"{_amount(cost.price)} {unit}".rstrip() if cost.upstream else _credits(line)
        each = "" if line.per_1000 is None else _amount(line.per_1000)
        counts = [str(n) for n in (cost.answers, cost.tokens_in, cost.tokens_out)]
        row = [cost.upstream or "network", printable(cost.model), *counts, paid, each]
        for name in compared:
            told = line.elsewhere.get(name)
            currency = routes.upstreams[name].currency
            row.append("" if told is None else f"{_amount(told)} {currency}")
        rows.append(row)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _credits(line: Line) -> str:
    money = "" if line.money is None else f" ({_amount(line.money)})"
    return f"{_amount(line.cost.credit)} credits{money}"


def _amount(micro: int) -> str:
    """Millionths as a decimal, without zeros at the end."""
    whole, rest = divmod(micro, 1_000_000)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")
