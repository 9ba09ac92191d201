"""Checks one account's credit of one epoch against the chain, trusting nobody who made the bundle.

Receipts -> lines -> leaf -> root on chain, each arrow a named step for each role, every step
reported. A bundle of the coordinator cannot show what it left out: give what the account kept
itself for that. Runs in the base install, and starts quickly: protocol and the standard library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Thread

from assay_contracts.artefact import load
from assay_contracts.credit import ledger_abi, own
from assay_contracts.credit.bundle import CreditBundle, PreviousLeaf, Statement
from assay_contracts.credit.own import Kept, receipt_digest
from assay_contracts.credit.posted import posting
from assay_contracts.credit.readers import ChainReader, FileChain, HttpChain
from assay_protocol.credit_tree import (
    COMPUTE,
    CreditLeaf,
    ProofItem,
    fold,
    receipts_root,
    role_name,
)
from assay_protocol.errors import AssayError

__all__ = [
    "ChainReader",
    "CreditBundle",
    "FileChain",
    "HttpChain",
    "Kept",
    "PreviousLeaf",
    "Report",
    "Standing",
    "Statement",
    "Step",
    "receipt_digest",
    "verify_bundle",
]
_OnChain = tuple[list["Step"], str, tuple["Standing", ...]]
Read = Callable[[int], ledger_abi.PostedEpoch | None]


@dataclass(frozen=True, slots=True)
class Step:
    """One check: its stable name, its outcome, and why, for people."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger says of one role: micro-credits, all that was claimed and what can be now."""

    role: int
    cumulative: int
    epoch_credit: int
    claimed: int
    claimable: int


@dataclass(frozen=True, slots=True)
class Report:
    """All steps, in order; `ok` if every one is. `state` is "final", "open", "void" or "not
    posted" ("" with another contract), `standing` one entry a role."""

    ok: bool
    steps: tuple[Step, ...]
    state: str = ""
    standing: tuple[Standing, ...] = field(default=())

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps if not step.ok)


def verify_bundle(
    bundle: CreditBundle,
    chain: ChainReader,
    kept: Sequence[Kept] | None = None,
    *,
    account: bytes | None = None,
    ledger: bytes | None = None,
    whole: bool = False,
) -> Report:
    """Every step, whatever fails before it.

    `kept` are the account's own receipts; with `whole` each of them must be in this epoch. Give
    `account`, one's own key, and `ledger`, the address the operator published, whenever they are
    known: anybody may deploy the same code and post other roots to it. Raises AssayError only if
    the chain cannot be asked.
    """
    asked = _Asked(bundle, chain)
    steps = [_one_account(bundle, account), _receipt_digests(bundle)]
    for statement in bundle.statements:
        steps += [_no_job_twice(statement), _lines_to_leaf(statement), _cumulative(statement)]
    if kept is not None:
        steps += _own(bundle, kept, whole)
    if ledger is not None:
        same = ledger == bundle.ledger
        steps.append(Step("ledger address", same, f"the bundle names 0x{bundle.ledger.hex()}"))
    found, state, standing = asked.answer()
    steps += found
    return Report(all(step.ok for step in steps), tuple(steps), state, standing)


def _one_account(bundle: CreditBundle, account: bytes | None) -> Step:
    wanted = bundle.account if account is None else account
    owners = {statement.leaf.account for statement in bundle.statements}
    roles = Counter(statement.leaf.role for statement in bundle.statements)
    ok = owners == {wanted} and max(roles.values()) == 1
    return Step("account", ok, f"{bundle.account.hex()[:16]} in {len(roles)} roles")


def _receipt_digests(bundle: CreditBundle) -> Step:
    booked = {line.digest for statement in bundle.statements for line in statement.lines}
    missing = sum(receipt_digest(blob) not in booked for blob in bundle.receipts)
    detail = f"{len(bundle.receipts)} receipts, {missing} not among the lines"
    return Step("receipt digests", missing == 0, detail)


def _no_job_twice(statement: Statement) -> Step:
    counts = Counter((line.kind, line.id) for line in statement.lines)
    twice = [f"{kind} {line_id.hex()}" for (kind, line_id), n in counts.items() if n > 1]
    detail = f"{twice[0]} is booked twice" if twice else f"{len(statement.lines)} lines"
    return Step("no job twice", not twice, _of(statement, detail))


def _lines_to_leaf(statement: Statement) -> Step:
    leaf = statement.leaf
    try:
        root, total = receipts_root(statement.lines)
    except AssayError as error:
        return Step("lines to leaf", False, _of(statement, str(error)))
    detail = f"epoch credit {total}"
    if total != leaf.epoch_credit:
        detail = f"lines sum to {total}, leaf says {leaf.epoch_credit}"
    ok = (root, total) == (leaf.receipts_root, leaf.epoch_credit)
    return Step("lines to leaf", ok, _of(statement, detail))


def _cumulative(statement: Statement) -> Step:
    leaf, previous = statement.leaf, statement.previous
    before = 0 if previous is None else previous.leaf.cumulative
    ok = before + leaf.epoch_credit == leaf.cumulative
    detail = f"{before} + {leaf.epoch_credit} = {before + leaf.epoch_credit}"
    if not ok:
        detail += f", leaf says {leaf.cumulative}"
    if previous is not None:
        same = (leaf.account, leaf.role, statement.index)
        if (previous.leaf.account, previous.leaf.role, previous.index) != same:
            ok, detail = False, "the previous leaf is another account's or place's"
    return Step("cumulative", ok, _of(statement, detail))


def _own(bundle: CreditBundle, kept: Sequence[Kept], whole: bool) -> list[Step]:
    lines = [
        line
        for statement in bundle.statements
        if statement.leaf.role == COMPUTE
        for line in statement.lines
    ]
    checks = (
        ("receipt signatures", own.signed_by(kept, bundle.account)),
        ("own receipts", own.in_lines(kept, lines, whole=whole)),
        ("own amounts", own.amounts(kept, lines, bundle.pricing)),
    )
    return [Step(name, *found) for name, found in checks]


class _Asked:
    """What the chain says, asked while the signatures are checked if the chain is elsewhere."""

    def __init__(self, bundle: CreditBundle, chain: ChainReader) -> None:
        self._bundle, self._chain = bundle, chain
        self._found: _OnChain | AssayError | None = None
        self._thread: Thread | None = None
        if isinstance(chain, HttpChain):  # the local chain's file stays in its thread
            self._thread = Thread(target=self._ask, daemon=True)
            self._thread.start()

    def answer(self) -> _OnChain:
        """Raises AssayError if the chain could not be asked."""
        if self._thread is None:
            return _on_chain(self._bundle, self._chain)
        self._thread.join()
        if isinstance(self._found, AssayError):
            raise self._found
        assert self._found is not None, "the thread ended by a fault of ours"
        return self._found

    def _ask(self) -> None:
        try:
            self._found = _on_chain(self._bundle, self._chain)
        except AssayError as error:
            self._found = error


def _on_chain(bundle: CreditBundle, chain: ChainReader) -> _OnChain:
    chain_id = chain.chain_id()
    steps = [Step("chain id", chain_id == bundle.chain_id, f"the chain says {chain_id}")]
    code_ok = load(ledger_abi.CONTRACT).is_code(chain.code(bundle.ledger))
    where = f"at 0x{bundle.ledger.hex()}"
    detail = f"the artefact {'is' if code_ok else 'is not'} {where}"
    steps.append(Step("contract code", code_ok, detail))
    if not code_ok:  # nothing such a contract answers means anything
        return [*steps, Step("leaf to root", False, "not checked: other code")], "", ()

    def read(epoch: int) -> ledger_abi.PostedEpoch | None:
        call = ledger_abi.epochs_call(epoch)
        return ledger_abi.decode_epoch(chain.call(bundle.ledger, call))

    steps += _to_roots(bundle, read)
    steps.append(_priced(bundle, chain))
    state, standing = _standing(bundle, chain, read(bundle.epoch) is not None)
    return steps, state, standing


def _to_roots(bundle: CreditBundle, read: Read) -> Iterator[Step]:
    posted = read(bundle.epoch)
    before = read(bundle.epoch - 1) if bundle.epoch > 1 else None
    for one in bundle.statements:
        place = one.index, one.proof
        yield _to_root("leaf to root", bundle.epoch, posted, one.leaf, *place)
        name = "previous leaf to root"
        if (old := one.previous) is not None:
            yield _to_root(name, bundle.epoch - 1, before, old.leaf, old.index, old.proof)
        elif before is not None:
            new = one.index >= before.leaves  # places are for ever, so it earned nothing before
            detail = f"place {one.index}, {before.leaves} leaves before: {'new' if new else 'old'}"
            yield Step(name, new, _of(one, detail))


def _priced(bundle: CreditBundle, chain: ChainReader) -> Step:
    """The rules that amounts were checked by are those the epoch was posted with."""
    try:
        policy = posting(chain, bundle.ledger, bundle.epoch).header.policy
    except AssayError as error:
        if error.code not in ("epoch_unknown", "chain_mismatch"):
            raise
        return Step("pricing", False, error.message)
    ok = sha256(bundle.pricing).digest() == policy
    return Step("pricing", ok, f"the epoch was priced by {policy.hex()[:16]}")


def _to_root(
    name: str,
    epoch: int,
    posted: ledger_abi.PostedEpoch | None,
    leaf: CreditLeaf,
    index: int,
    proof: Sequence[ProofItem],
) -> Step:
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


def _of(statement: Statement, detail: str) -> str:
    return f"{role_name(statement.leaf.role)}: {detail}"


def _standing(
    bundle: CreditBundle, chain: ChainReader, posted: bool
) -> tuple[str, tuple[Standing, ...]]:
    """Whether the epoch counts for good, and what is left to claim by it."""

    def ask(call: bytes) -> bytes:
        return chain.call(bundle.ledger, call)

    if not posted:
        voided = ledger_abi.decode_number(ask(ledger_abi.voided_call()))
        return "void" if voided else "not posted", ()
    final = ledger_abi.decode_flag(ask(ledger_abi.is_final_call(bundle.epoch)))
    standing = []
    for leaf in (statement.leaf for statement in bundle.statements):
        claimed = ledger_abi.decode_number(ask(ledger_abi.claimed_call(leaf.account, leaf.role)))
        left = max(0, leaf.cumulative - claimed) if final else 0
        standing.append(Standing(leaf.role, leaf.cumulative, leaf.epoch_credit, claimed, left))
    return ("final" if final else "open"), tuple(standing)
