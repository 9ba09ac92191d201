"""`assay credit show|verify|claim`: one account's credit, checked against the chain and paid out.

The checks are those of assay_contracts, handed over to as the umbrella hands over to `node`: the
SDK itself does not depend on the chain's package. What is not needed is not imported: a node with a
thousand receipts is checked within the time one would wait for the imports alone.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assay import own_receipts
from assay.cli import FAILED, MARKS, OK, key_of, load, print_json
from assay_protocol.credit_tree import role_name
from assay_protocol.errors import AssayError

MICRO = 1_000_000


def verify(options: argparse.Namespace) -> int:
    """Every step from receipts to the root on chain; exit 0 only if all hold."""
    folder = _folder(options)
    account = _account(options, folder)
    bundle = _bundle(options, account)
    with chain_at(options.chain) as chain:
        report = _checks().verify_bundle(
            bundle,
            chain,
            _kept(options, folder),
            account=account,
            ledger=address_of(options.ledger),
            whole=options.whole,
        )
    if options.json:
        print_json(asdict(report))
        return OK if report.ok else FAILED
    for step in report.steps:
        print(f"{MARKS[step.ok]:<7}  {step.name}: {step.detail}")
    _print_standing(bundle.epoch, report)
    print("the credit holds" if report.ok else "the credit DOES NOT HOLD")
    return OK if report.ok else FAILED


def show(options: argparse.Namespace) -> int:
    """Print what the bundle says, unchecked; with a chain, what is left to claim."""
    bundle = _bundle(options, _account(options, _folder(options)))
    report = None
    if options.chain:
        with chain_at(options.chain) as chain:
            report = _checks().verify_bundle(bundle, chain)
    if options.json:
        print_json(asdict(bundle) | ({"chain": asdict(report)} if report else {}))
        return OK
    print(f"account {bundle.account.hex()}, epoch {bundle.epoch}, chain {bundle.chain_id}")
    for one in bundle.statements:
        leaf = one.leaf
        print(
            f"{role_name(leaf.role):<9} {_credits(leaf.epoch_credit)} in {len(one.lines)} lines of"
            f" this epoch, {_credits(leaf.cumulative)} in all, place {one.index}"
        )
    if report is not None:
        _print_standing(bundle.epoch, report)
    return OK


def claim(options: argparse.Namespace) -> int:
    """Bind a payee if there is none, then claim what is final; again is nothing."""
    folder = _folder(options)
    if folder is None:
        raise AssayError("config_invalid", "give --node-data: the node's key must sign")
    claiming = load("assay_contracts.credit.claiming", "contracts")
    seed = own_receipts.seed_in(folder)
    bundle = _bundle(options, own_receipts.key_in(folder), final=True)
    done = claiming.claim(
        bundle,
        seed,
        options.chain,
        ledger=address_of(options.ledger),
        payee=address_of(options.payee),
        say=lambda text: print(text, file=sys.stderr),
    )
    if options.json:
        print_json([asdict(one) for one in done])
        return OK
    for one in done:
        what = f"{_credits(one.amount)} claimed" if one.amount else "nothing to claim"
        print(f"{role_name(one.role):<9} {what}" + (f" in {one.hash.hex()}" if one.hash else ""))
    return OK


@contextlib.contextmanager
def chain_at(where: str) -> Any:
    """A reader of the chain behind a URL or in a file."""
    http = where.startswith(("http://", "https://"))
    chain = _checks().HttpChain(where) if http else _checks().FileChain(where)
    try:
        yield chain
    finally:
        chain.close()


def address_of(text: str | None) -> bytes | None:
    """A 20-byte address written as hex; None for none. Raises AssayError("config_invalid")."""
    if not text:
        return None
    with contextlib.suppress(ValueError):
        address = bytes.fromhex(text.removeprefix("0x"))
        if len(address) == 20:
            return address
    raise AssayError("config_invalid", f"not an address: {text!r}")


def _print_standing(epoch: int, report: Any) -> None:
    if report.state:
        print(f"epoch {epoch} is {report.state}")
    for one in report.standing:
        print(
            f"{role_name(one.role):<9} {_credits(one.claimed)} claimed,"
            f" {_credits(one.claimable)} to claim"
        )


def _credits(amount: int) -> str:
    return f"{amount // MICRO}.{amount % MICRO:06}"


def _folder(options: argparse.Namespace) -> Path | None:
    """The node's data: as given, else the default place if there is a node."""
    if options.node_data is not None:
        return Path(options.node_data).expanduser()
    if getattr(options, "receipts", None) or options.account:
        return None
    folder = own_receipts.default_folder()
    return folder if (folder / own_receipts.RECEIPTS_FILE).exists() else None


def _account(options: argparse.Namespace, folder: Path | None) -> bytes | None:
    """Whose credit: as given, else the node's; None is the client's own."""
    if options.account:
        return key_of(options.account)
    return None if folder is None else own_receipts.key_in(folder)


def _kept(options: argparse.Namespace, folder: Path | None) -> Any:
    if options.receipts:
        return own_receipts.kept_of(options.receipts.read_text())
    return None if folder is None else own_receipts.kept_in(folder)


def _bundle(options: argparse.Namespace, account: bytes | None, *, final: bool = False) -> Any:
    if options.bundle:
        return _checks().CreditBundle.decode(options.bundle.read_bytes())
    from assay.chat_command import connect

    with connect(options) as client:
        raw = client.credit_bundle(account, final=final)
    if options.save:
        options.save.write_bytes(raw)
    return _checks().CreditBundle.decode(raw)


def _checks() -> Any:
    return load("assay_contracts.credit.verify", "contracts")
