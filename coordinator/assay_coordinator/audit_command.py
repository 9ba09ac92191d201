"""`coordinator audit`: one epoch checked whole, by anybody, from the chain and published files.

It needs no coordinator and trusts none: header from the chain, leaves from a file or URL. With
`--challenge` the first fraud found is shown to the ledger, which voids the epoch.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import trio

from assay_contracts import calls
from assay_contracts.adapters.offers import Call
from assay_contracts.adapters.rpc_chain import RpcChain
from assay_contracts.adapters.transact import transact
from assay_contracts.adapters.wallet import Wallet, address_of, read_address
from assay_contracts.artefact import load
from assay_contracts.credit import ledger_abi
from assay_contracts.credit.epoch_audit import Before, EpochAudit, audit_epoch
from assay_contracts.credit.posted import Posting, posted_epoch, posting
from assay_contracts.credit.readers import ChainReader, FileChain, HttpChain
from assay_contracts.deploy.ledger import NO_ACCOUNT
from assay_contracts.deploy.plan import Plan
from assay_contracts.local.genesis import poster_key
from assay_network.keystore import load_key
from assay_protocol.errors import AssayError

DOCUMENT_BYTES_MAX: Final = 1 << 30  # a leaf file of eleven million accounts
ANSWER_SECONDS: Final = 60.0
EPOCHS_FOLDER: Final = "epochs"
MARKS: Final = {True: "ok", False: "FAILED"}
CALLDATA_BYTES_SHOWN: Final = 64


@dataclass(frozen=True, slots=True)
class Challenge:
    """A proof of fraud that was sent."""

    function: str
    transaction: bytes


def audit(args: argparse.Namespace) -> int:
    """Exit 0 if every step holds."""
    if args.challenge and args.key is None:
        raise AssayError("config_invalid", "a challenge is sent by somebody: give --key")
    data_dir = args.data_dir.expanduser()
    where = args.chain or str(data_dir / "chain.db")
    if args.challenge and not _is_url(where):
        raise AssayError("config_invalid", "a challenge is sent to a node: give --chain URL")
    with _opened(where) as chain:
        ledger = _ledger(args, data_dir, chain.chain_id())
        if not load(ledger_abi.CONTRACT).is_code(chain.code(ledger)):
            raise AssayError("chain_mismatch", f"no ledger of ours at 0x{ledger.hex()}")
        _say(f"looking for epoch {args.epoch}")
        found = posting(chain, ledger, args.epoch)
        result = _checked(args, data_dir, chain, ledger, found)
    sent = None
    if args.challenge and result.frauds:
        sent = trio.run(_challenge, where, ledger, result, load_key(args.key))
    _print(args, ledger, found, result, sent)
    return 0 if result.ok else 1


def _checked(
    args: argparse.Namespace, data_dir: Path, chain: ChainReader, ledger: bytes, found: Posting
) -> EpochAudit:
    where = args.leaves or str(data_dir / EPOCHS_FOLDER / f"{args.epoch}.leaves")
    raw = _read(where)
    before = None
    if args.epoch > 1:
        older = args.before or _sibling(where, args.epoch - 1)
        before = Before(posted_epoch(chain, ledger, args.epoch - 1), _read(older))
    pricing = None if args.pricing is None else args.pricing.read_bytes()
    return audit_epoch(args.epoch, found.header, raw, before, pricing, _say)


async def _challenge(url: str, ledger: bytes, result: EpochAudit, seed: bytes) -> Challenge:
    fraud = result.frauds[0]
    data = calls.encode(ledger_abi.CONTRACT, fraud.function, *fraud.arguments)
    _say(f"sending {fraud.function}: {fraud.detail}")
    chain = RpcChain(url)
    try:
        receipt = await transact(chain, Wallet.of_seed(seed), Call(ledger, data))
    finally:
        await chain.aclose()
    return Challenge(fraud.function, receipt.transaction_hash)


def _print(
    args: argparse.Namespace,
    ledger: bytes,
    found: Posting,
    result: EpochAudit,
    sent: Challenge | None,
) -> None:
    proofs = [
        {
            "function": fraud.function,
            "detail": fraud.detail,
            "to": ledger,
            "data": calls.encode(ledger_abi.CONTRACT, fraud.function, *fraud.arguments),
        }
        for fraud in result.frauds
    ]
    if args.json:
        steps = [asdict(step) for step in result.steps]
        document = {"epoch": args.epoch, "ok": result.ok, "steps": steps, "proofs": proofs}
        document |= {"header": asdict(found.header), "sent": asdict(sent) if sent else None}
        sys.stdout.write(json.dumps(document, default=bytes.hex) + "\n")
        return
    for step in result.steps:
        sys.stdout.write(f"{MARKS[step.ok]:<7}  {step.name}: {step.detail}\n")
    for proof in proofs:
        data: Any = proof["data"]
        shown = data[:CALLDATA_BYTES_SHOWN].hex()
        sys.stdout.write(
            f"fraud    {proof['detail']}; proven to 0x{ledger.hex()} by {proof['function']},"
            f" {len(data)} bytes 0x{shown}...\n"
        )
    if sent is not None:
        sys.stdout.write(f"sent     {sent.function} in {sent.transaction.hex()}\n")
    if not result.ok and not proofs and "root" in result.failed:
        sys.stdout.write("these are not the posted leaves: `demand` one that is kept back\n")
    holds = "holds" if result.ok else "DOES NOT HOLD"
    sys.stdout.write(f"epoch {args.epoch} {holds}: {found.header.leaves} leaves\n")


def _ledger(args: argparse.Namespace, data_dir: Path, chain_id: int) -> bytes:
    if args.ledger:
        return read_address(args.ledger)
    try:
        seed = load_key(data_dir / "coordinator.key")
    except FileNotFoundError:
        raise AssayError("config_invalid", "give --ledger, the address it published") from None
    poster = address_of(poster_key(seed))
    return Plan(poster, NO_ACCOUNT, poster, chain_id).addresses[ledger_abi.CONTRACT]


@contextmanager
def _opened(where: str) -> Iterator[ChainReader]:
    """The chain behind a URL, or in a local chain's file (which another process may be writing)."""
    chain = HttpChain(where) if _is_url(where) else FileChain(where)
    try:
        yield chain
    finally:
        chain.close()


def _is_url(where: str) -> bool:
    return where.startswith(("http://", "https://"))


def _read(where: str) -> bytes:
    """A file's or URL's bytes, `DOCUMENT_BYTES_MAX` at most."""
    try:
        if _is_url(where):
            with urllib.request.urlopen(where, timeout=ANSWER_SECONDS) as answer:
                raw = bytes(answer.read(DOCUMENT_BYTES_MAX + 1))
        else:
            with Path(where).open("rb") as file:
                raw = file.read(DOCUMENT_BYTES_MAX + 1)
    except urllib.error.URLError as error:
        raise AssayError("peer_gone", f"{where}: {error.reason}") from error
    except OSError as error:
        raise AssayError("config_invalid", f"{where}: {error.strerror or error}") from error
    if len(raw) > DOCUMENT_BYTES_MAX:
        raise AssayError("oversized", f"{where} is larger than {DOCUMENT_BYTES_MAX} bytes")
    return raw


def _sibling(where: str, epoch: int) -> str:
    """Where the epoch before is published, if it is beside."""
    folder, _, _ = where.rpartition("/")
    return f"{folder}/{epoch}.leaves" if folder else f"{epoch}.leaves"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
