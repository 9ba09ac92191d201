"""Two epochs on a chain, one account's bundle of the second, and every way to tamper with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assay_contracts.credit.bundle import CreditBundle, PreviousLeaf, Statement
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.credit.verify import Kept, receipt_digest
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_protocol import messages as m
from assay_protocol.codec import encode
from assay_protocol.credit_tree import (
    AUDITOR,
    COMPUTE,
    CreditLeaf,
    CreditLine,
    ProofItem,
    account_tree,
    receipts_root,
)
from assay_protocol.signing import Identity, open_signed, seal
from assay_protocol.splits import Splits
from assay_protocol.tickets import job_price

KEY = poster_key(bytes(range(32)))
NODE, CLIENT, COORDINATOR = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
ACCOUNTS = 5
ME, MY_AUDITS = 3, 1
MODEL = b"\x09" * 32
SHARE = m.Share(account=CLIENT.public_key, role=1, bps=1_000)
RULES = Splits(m.Pricing(fee_bps=500, splits=(m.ModelSplit(model=MODEL, shares=(SHARE,)),)))
JOBS = 6


@dataclass(frozen=True)
class Posted:
    """Two epochs on a chain, the bundle of NODE for the second, and what it kept."""

    bundle: CreditBundle
    kept: tuple[Kept, ...]
    file: Path
    ledger: bytes


def _id(epoch: int, number: int) -> bytes:
    return bytes([epoch, number]) * 8


def job(number: int, *, n_out: int = 300, ticket: bytes = b"") -> Kept:
    """A job of NODE: ticket and receipt; the client acknowledged 100 tokens."""
    issued = m.Ticket(
        ticket=ticket or _id(2, number),
        client=CLIENT.public_key,
        node=NODE.public_key,
        model=MODEL,
        prompt_hash=bytes(32),
        n_in=40 + number,
        sampler=m.Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0),
        max_tokens=512,
        start=0,
        nonce_commitment=bytes(32),
        seed_ticket=_id(2, number),
        price_in=1_100,
        price_out=4_700,
        issued_at=1,
        expires_at=2,
        epoch=1,
    )
    receipt = m.Receipt(
        ticket=issued.ticket,
        class_id="c",
        output_hash=bytes(32),
        root=bytes(32),
        n_in=issued.n_in,
        n_out=n_out,
        finish="stop",
        started_at=1,
        first_at=2,
        ended_at=3,
    )
    ack = m.Ack(ticket=issued.ticket, count=100, output_hash=bytes(32))
    return Kept(issued.ticket, seal(NODE, receipt), seal(CLIENT, ack), seal(COORDINATOR, issued))


def line_of(kept: Kept, n_out: int) -> CreditLine:
    """As the coordinator books it, by the messages' own classes."""
    assert kept.ticket_blob is not None
    ticket = own_ticket(kept)
    pay = RULES.divide(MODEL, job_price(ticket, n_out)).node
    return CreditLine("job", kept.ticket, receipt_digest(kept.receipt), pay)


def own_ticket(kept: Kept) -> m.Ticket:
    assert kept.ticket_blob is not None
    return open_signed(m.Ticket, kept.ticket_blob, COORDINATOR.public_key)


KEPT = tuple(job(number) for number in range(JOBS))
# the client told the coordinator of all 300 tokens, or the node's own word came with its ack only
MY_LINES = tuple(line_of(one, 300 if number % 2 else 228) for number, one in enumerate(KEPT))


def lines_of(epoch: int, account: int) -> tuple[CreditLine, ...]:
    if (epoch, account) == (2, ME):
        return MY_LINES
    blobs = [f"receipt {epoch} {account} {n}".encode() for n in range(account + 1)]
    kind = "audit" if account == MY_AUDITS else "job"
    return tuple(
        CreditLine(kind, _id(epoch, n), receipt_digest(blob), 100 + n)
        for n, blob in enumerate(blobs)
    )


def leaf_of(epoch: int, account: int, before: int) -> CreditLeaf:
    root, total = receipts_root(lines_of(epoch, account))
    key = NODE.public_key if account in (ME, MY_AUDITS) else bytes([account]) * 32
    role = AUDITOR if account == MY_AUDITS else COMPUTE
    return CreditLeaf(key, role, before + total, total, root)


def post_two_epochs(path: Path) -> Posted:
    """On a chain in the file `path`."""
    chain = LocalChain.open(path, genesis=Genesis(address_of(KEY)))
    ledger = CreditLedgerClient(chain, KEY)
    ledger.deploy()
    first = [leaf_of(1, account, 0) for account in range(ACCOUNTS)]
    second = [leaf_of(2, account, leaf.cumulative) for account, leaf in enumerate(first)]
    second.append(leaf_of(2, ACCOUNTS, 0))
    trees = [account_tree(leaves) for leaves in (first, second)]
    for epoch, tree in enumerate(trees, start=1):
        ledger.post(epoch, Header(tree.root, tree.total, 20, tree.size, bytes(32), RULES.digest))
    statements = tuple(
        Statement(
            leaf=second[mine],
            index=mine,
            proof=trees[1].proof(mine),
            lines=lines_of(2, mine),
            previous=PreviousLeaf(first[mine], mine, trees[0].proof(mine)),
        )
        for mine in (ME, MY_AUDITS)
    )
    bundle = CreditBundle(
        chain_id=chain.chain_id,
        ledger=ledger.address,
        epoch=2,
        pricing=encode(RULES.pricing),
        statements=statements,
        receipts=tuple(one.receipt for one in KEPT),
    )
    chain.close()
    return Posted(bundle, KEPT, path, ledger.address)


Tamper = Callable[[CreditBundle], CreditBundle]


def mine(**changes: Any) -> Tamper:
    """The bundle with another first statement."""

    def tamper(bundle: CreditBundle) -> CreditBundle:
        first, *rest = bundle.statements
        made = {name: new(first) if callable(new) else new for name, new in changes.items()}
        return replace(bundle, statements=(replace(first, **made), *rest))

    return tamper


def leaf(**changes: Any) -> Tamper:
    return mine(leaf=lambda one: replace(one.leaf, **changes))


def _raised(statement: Statement) -> tuple[CreditLine, ...]:
    first, *rest = statement.lines
    return replace(first, amount=first.amount + 1), *rest


def _raise_amount_and_leaf(bundle: CreditBundle) -> CreditBundle:
    lines = _raised(bundle.statements[0])
    root, total = receipts_root(lines)
    before = bundle.statements[0].leaf
    more = replace(before, receipts_root=root, epoch_credit=total, cumulative=before.cumulative + 1)
    return mine(lines=lines, leaf=more)(bundle)


def _proof(amount: Callable[[int], int]) -> Tamper:
    def forged(statement: Statement) -> tuple[ProofItem, ...]:
        (digest, old), *rest = statement.proof
        return ProofItem(digest, amount(old)), *rest

    return mine(proof=forged)


def _previous(**changes: Any) -> Tamper:
    def other(statement: Statement) -> PreviousLeaf:
        assert statement.previous is not None
        old = statement.previous.leaf
        made = {name: new(old) if callable(new) else new for name, new in changes.items()}
        return replace(statement.previous, leaf=replace(old, **made))

    return mine(previous=other)


def _without_a_job(bundle: CreditBundle) -> CreditBundle:
    dropped = mine(lines=lambda one: one.lines[1:])(bundle)
    return replace(dropped, receipts=bundle.receipts[1:])


def _other_rules(bundle: CreditBundle) -> CreditBundle:
    return replace(bundle, pricing=encode(m.Pricing(fee_bps=1_500, splits=())))


TAMPERINGS: dict[str, tuple[Tamper, set[str]]] = {
    "dropped receipt": (_without_a_job, {"lines to leaf"}),
    "dropped line": (mine(lines=lambda s: s.lines[1:]), {"receipt digests", "lines to leaf"}),
    "swapped lines": (mine(lines=lambda s: s.lines[::-1]), {"lines to leaf"}),
    "changed amount": (mine(lines=_raised), {"lines to leaf", "own amounts"}),
    "changed amount and leaf": (_raise_amount_and_leaf, {"leaf to root", "own amounts"}),
    "raised cumulative": (leaf(cumulative=10**9), {"cumulative", "leaf to root"}),
    "wrong index": (mine(index=2), {"cumulative", "leaf to root"}),
    "index of padding": (mine(index=7), {"cumulative", "leaf to root"}),
    "other account": (
        leaf(account=b"\x09" * 32),
        {"account", "receipt signatures", "cumulative", "leaf to root"},
    ),
    "other role": (
        leaf(role=2),
        {"cumulative", "leaf to root"},
    ),
    "one role twice": (leaf(role=AUDITOR), {"account", "cumulative", "leaf to root"}),
    "forged proof": (_proof(lambda amount: amount + 1), {"leaf to root"}),
    "proof that overflows": (_proof(lambda _: (1 << 128) - 1), {"leaf to root"}),
    "short proof": (mine(proof=lambda s: s.proof[:-1]), {"leaf to root"}),
    "double line": (
        mine(lines=lambda s: (*s.lines, s.lines[0])),
        {"no job twice", "lines to leaf"},
    ),
    "foreign receipt": (lambda b: replace(b, receipts=(b"junk",)), {"receipt digests"}),
    "other chain": (lambda b: replace(b, chain_id=1), {"chain id"}),
    "other ledger address": (
        lambda b: replace(b, ledger=b"\x05" * 20),
        {"ledger address", "contract code", "leaf to root"},
    ),
    "unknown epoch": (
        lambda b: replace(b, epoch=7),
        {"leaf to root", "previous leaf to root", "pricing"},
    ),
    "no previous leaf": (mine(previous=None), {"cumulative", "previous leaf to root"}),
    "changed previous leaf": (
        _previous(cumulative=lambda old: old.cumulative - 1),
        {"cumulative", "previous leaf to root"},
    ),
    "strange previous leaf": (
        _previous(account=b"\x63" * 32),
        {"cumulative", "previous leaf to root"},
    ),
    "other rules": (_other_rules, {"own amounts", "pricing"}),
    "no rules": (lambda b: replace(b, pricing=b"junk"), {"own amounts", "pricing"}),
}
