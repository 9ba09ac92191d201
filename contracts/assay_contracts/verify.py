"""Checks one account's credit of one epoch against the chain, trusting nobody who made the bundle.

Receipts -> lines -> leaf -> root on chain, each arrow a named step, every step reported. A bundle
of the coordinator cannot show what it left out: give the account's own lines for that.
Runs in the base install: protocol, httpx and the standard library.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assay_contracts import ledger_abi
from assay_contracts.artefact import load
from assay_contracts.bundle import CreditBundle, PreviousLeaf
from assay_contracts.readers import ChainReader, FileChain, HttpChain
from assay_protocol.credit_tree import CreditLeaf, CreditLine, ProofItem, fold, receipts_root
from assay_protocol.errors import AssayError

__all__ = [
    "ChainReader",
    "CreditBundle",
    "FileChain",
    "HttpChain",
    "PreviousLeaf",
    "Report",
    "Step",
    "receipt_digest",
    "verify_bundle",
]


@dataclass(frozen=True, slots=True)
class Step:
    """One check: its stable name, its outcome, and why, for people."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """All steps, in order; `ok` if every one is."""

    ok: bool
    steps: tuple[Step, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps if not step.ok)


def verify_bundle(
    bundle: CreditBundle,
    chain: ChainReader,
    own_lines: Sequence[CreditLine] | None = None,
    *,
    ledger: bytes | None = None,
) -> Report:
    """Every step, whatever fails before it.

    Give `ledger`, the address the operator published, whenever it is known: anybody may deploy the
    same code and post other roots to it. Raises AssayError only if the chain cannot be asked.
    """
    steps = [
        _receipt_digests(bundle),
        _no_job_twice(bundle),
        _lines_to_leaf(bundle),
        _cumulative(bundle),
    ]
    if own_lines is not None:
        steps.append(_own_lines(bundle, own_lines))
    if ledger is not None:
        same = ledger == bundle.ledger
        steps.append(Step("ledger address", same, f"the bundle names 0x{bundle.ledger.hex()}"))
    steps += _on_chain(bundle, chain)
    return Report(all(step.ok for step in steps), tuple(steps))


def receipt_digest(blob: bytes) -> bytes:
    """The digest under which a signed receipt stands in a line: BLAKE2b of 32 bytes."""
    return hashlib.blake2b(blob, digest_size=32).digest()


def _receipt_digests(bundle: CreditBundle) -> Step:
    booked = {line.digest for line in bundle.lines}
    missing = sum(receipt_digest(blob) not in booked for blob in bundle.receipts)
    detail = f"{len(bundle.receipts)} receipts, {missing} not among the lines"
    return Step("receipt digests", missing == 0, detail)


def _no_job_twice(bundle: CreditBundle) -> Step:
    counts = Counter((line.kind, line.id) for line in bundle.lines)
    twice = [f"{kind} {line_id.hex()}" for (kind, line_id), n in counts.items() if n > 1]
    detail = f"{twice[0]} is booked twice" if twice else f"{len(bundle.lines)} lines"
    return Step("no job twice", not twice, detail)


def _lines_to_leaf(bundle: CreditBundle) -> Step:
    try:
        root, total = receipts_root(bundle.lines)
    except AssayError as error:
        return Step("lines to leaf", False, str(error))
    leaf = bundle.leaf
    if total != leaf.epoch_credit:
        return Step("lines to leaf", False, f"lines sum to {total}, leaf says {leaf.epoch_credit}")
    return Step("lines to leaf", root == leaf.receipts_root, f"epoch credit {total}")


def _cumulative(bundle: CreditBundle) -> Step:
    leaf, previous = bundle.leaf, bundle.previous
    before = 0 if previous is None else previous.leaf.cumulative
    detail = f"{before} + {leaf.epoch_credit} = {before + leaf.epoch_credit}"
    if previous is None:
        detail += " (first epoch of this account)"
    elif (previous.leaf.account, previous.leaf.role) != (leaf.account, leaf.role):
        return Step("cumulative", False, "the previous leaf is another account's")
    if before + leaf.epoch_credit != leaf.cumulative:
        detail += f", leaf says {leaf.cumulative}"
    return Step("cumulative", before + leaf.epoch_credit == leaf.cumulative, detail)


def _own_lines(bundle: CreditBundle, own_lines: Sequence[CreditLine]) -> Step:
    booked = set(bundle.lines)
    missing = [line for line in own_lines if line not in booked]
    detail = f"{len(own_lines)} of one's own, {len(missing)} missing or changed"
    return Step("own lines", not missing, detail)


def _on_chain(bundle: CreditBundle, chain: ChainReader) -> list[Step]:
    chain_id = chain.chain_id()
    same_chain = Step("chain id", chain_id == bundle.chain_id, f"the chain says {chain_id}")
    code_ok = load(ledger_abi.CONTRACT).is_code(chain.code(bundle.ledger))
    where = f"at 0x{bundle.ledger.hex()}"
    code = Step("contract code", code_ok, f"the artefact {'is' if code_ok else 'is not'} {where}")
    if not code_ok:  # nothing such a contract answers means anything
        return [same_chain, code, Step("leaf to root", False, "not checked: other code")]

    def read(epoch: int) -> ledger_abi.PostedEpoch | None:
        return ledger_abi.decode_epoch(chain.call(bundle.ledger, ledger_abi.epochs_call(epoch)))

    leaf = _to_root("leaf to root", read, bundle.epoch, bundle.leaf, bundle.index, bundle.proof)
    steps = [same_chain, code, leaf]
    if (before := bundle.previous) is not None and bundle.epoch > 0:
        name = "previous leaf to root"
        previous = (before.leaf, before.index, before.proof)
        steps.append(_to_root(name, read, bundle.epoch - 1, *previous))
    return steps


def _to_root(
    name: str,
    read: Callable[[int], ledger_abi.PostedEpoch | None],
    epoch: int,
    leaf: CreditLeaf,
    index: int,
    proof: Sequence[ProofItem],
) -> Step:
    posted = read(epoch)
    if posted is None:
        return Step(name, False, f"epoch {epoch} is not on the chain")
    if index >= posted.leaves:
        return Step(name, False, f"index {index} in a tree of {posted.leaves}")
    try:
        root, total = fold(leaf.hash, leaf.cumulative, index, proof)
    except AssayError as error:
        return Step(name, False, str(error))
    ok = (root, total) == (posted.root, posted.total_cum)
    detail = f"epoch {epoch} root {posted.root.hex()[:16]} total {posted.total_cum}"
    return Step(name, ok, detail if ok else f"the proof leads to {root.hex()[:16]}, not {detail}")
