"""`assay cost`: what was spent, for how many tokens, and what an upstream takes for them.

It reads what a gateway added up (gateway/usage.py) and the receipts that `assay chat` and `job
submit` kept. A receipt names its model by the digest of its file. With `--owner` every key of the
gateway is told apart, with what it spent at each upstream of what it may.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from assay.cli import OK, USAGE, print_json, printable
from assay.gateway.api_keys import read_keys
from assay.gateway.spending import read_spent_upstream
from assay.gateway.usage import DAY_SECONDS, read_usage
from assay.records import ReceiptRecord, read_records
from assay.routing.core.costs import Allowance, Cost, Line, added_up, allowances, beside
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
        usage, receipts = _files(options)
        costs = added_up(_spent(options, usage, receipts))
        bounds = _allowances(options, usage, routes)
    except (AssayError, OSError) as error:
        print(f"assay cost: {printable(str(error))}", file=sys.stderr)
        return USAGE
    lines = [beside(one, routes.upstreams, routes.credit_price) for one in costs]
    if options.json:
        told: dict[str, object] = {"lines": [line.told() for line in lines]}
        if options.owner:
            told["budgets"] = [one.told() for one in bounds]
        print_json(told)
    else:
        _print(lines, routes, options.owner)
        if bounds:
            _print_allowances(bounds, routes)
    return OK


def _files(options: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """The gateway's, and those of receipts: what was named, or else what is there."""
    usage = [data_folder(options.data or "", "gateway") / "gateway.sqlite"]
    if options.data is not None or options.receipts:
        return usage if options.data is not None else [], options.receipts or []
    usage = [path for path in usage if path.exists()]
    receipts = [path for path in (data_folder("", "receipts"),) if path.exists()]
    if not usage and not receipts:
        raise AssayError("config_invalid", "nothing was kept here: give --data or --receipts")
    return usage, receipts


def _spent(options: argparse.Namespace, usage: list[Path], receipts: list[Path]) -> Iterator[Cost]:
    since = int(time.time()) // DAY_SECONDS - options.days + 1 if options.days else 0
    for path in usage:
        for one in read_usage(path, since):
            yield Cost(
                one.model, one.upstream, one.requests, one.tokens_in, one.tokens_out, one.credit,
                one.price, one.caller if options.owner else "",
            )  # fmt: skip
    for path in receipts:
        yield from _receipts(path, since)


def _allowances(
    options: argparse.Namespace, usage: list[Path], routes: Routes
) -> tuple[Allowance, ...]:
    """Over the life of the gateway's data, whatever `--days` says: so are the budgets."""
    if not options.owner:
        if options.keys is not None:
            raise AssayError("config_invalid", "--keys tells of budgets, and needs --owner")
        return ()
    keys = () if options.keys is None else read_keys(options.keys)
    spent = {pair: micro for path in usage for pair, micro in read_spent_upstream(path).items()}
    return allowances(spent, {key.name: key.upstream_budgets for key in keys}, routes.upstreams)


def _receipts(path: Path, since: int) -> Iterator[Cost]:
    for record in read_records(path.read_bytes()):
        if peek(Receipt, record.receipt).ended_at // 1_000_000 >= since * DAY_SECONDS:
            yield _of_receipt(record)


def _of_receipt(record: ReceiptRecord) -> Cost:
    ticket, receipt = peek(Ticket, record.ticket), peek(Receipt, record.receipt)
    model = ticket.model.hex()[:16]
    return Cost(model, "", 1, receipt.n_in, receipt.n_out, record.credit)


def _print(lines: list[Line], routes: Routes, owner: bool) -> None:
    head = ["answered by", "model", "answers", "tokens in", "out", "paid", "for 1000"]
    compared = sorted({name for line in lines for name in line.elsewhere})
    rows = [[*(["key"] if owner else []), *head, *(f"at {name}" for name in compared)]]
    for line in lines:
        cost = line.cost
        paid = _money(cost.price, cost.upstream, routes) if cost.upstream else _credits(line)
        each = "" if line.per_1000 is None else _amount(line.per_1000)
        counts = [str(n) for n in (cost.answers, cost.tokens_in, cost.tokens_out)]
        row = [cost.upstream or "network", printable(cost.model), *counts, paid, each]
        for name in compared:
            told = line.elsewhere.get(name)
            row.append("" if told is None else _money(told, name, routes))
        rows.append([*([cost.caller or "-"] if owner else []), *row])
    _print_columns(rows)


def _print_allowances(bounds: tuple[Allowance, ...], routes: Routes) -> None:
    rows = [["key", "at", "spent", "budget", "left"]]
    for one in bounds:
        budget = _money(one.budget, one.upstream, routes) if one.budget else "any"
        left = "any" if one.left is None else _money(one.left, one.upstream, routes)
        spent = _money(one.spent, one.upstream, routes)
        rows.append([one.caller or "-", one.upstream, spent, budget, left])
    print()
    _print_columns(rows)


def _print_columns(rows: list[list[str]]) -> None:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _money(micro: int, upstream: str, routes: Routes) -> str:
    """In the upstream's currency, if it is known."""
    terms = routes.upstreams.get(upstream)
    return _amount(micro) if terms is None else f"{_amount(micro)} {terms.currency}"


def _credits(line: Line) -> str:
    money = "" if line.money is None else f" ({_amount(line.money)})"
    return f"{_amount(line.cost.credit)} credits{money}"


def _amount(micro: int) -> str:
    """Millionths as a decimal, without zeros at the end."""
    whole, rest = divmod(micro, 1_000_000)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")
