"""A credit bundle: all that one account needs to check its credit of one epoch, in one file.

A list of msgpack with its version first, so that any language reads it; amounts are 16 big-endian
bytes because msgpack's integers end at 64 bits. Decoding bounds everything and raises nothing but
ProtocolError: a bundle comes from the party it is meant to check.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from assay_protocol.credit_tree import (
    AMOUNT_MAX,
    LINE_KINDS,
    CreditLeaf,
    CreditLine,
    ProofItem,
    decode_proof,
    encode_proof,
)
from assay_protocol.errors import ProtocolError
from assay_protocol.limits import MESSAGE_BYTES_MAX

BUNDLE_VERSION: Final = 2
BUNDLE_BYTES_MAX: Final = 64 << 20
LINES_MAX: Final = 1 << 18
RECEIPT_BYTES_MAX: Final = 4096
PRICING_BYTES_MAX: Final = MESSAGE_BYTES_MAX
ADDRESS_BYTES: Final = 20

_FIELDS: Final = 7
STATEMENTS_MAX: Final = 16  # an account has one a role
_KIND_NAMES: Final = {number: kind for kind, number in LINE_KINDS.items()}


@dataclass(frozen=True, slots=True)
class PreviousLeaf:
    """The account's leaf in the epoch before, and its proof there."""

    leaf: CreditLeaf
    index: int
    proof: tuple[ProofItem, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """What the account earned in one role: its leaf, where that stands, and the lines behind it.

    `previous` is absent only in the role's first epoch.
    """

    leaf: CreditLeaf
    index: int
    proof: tuple[ProofItem, ...]
    lines: tuple[CreditLine, ...]
    previous: PreviousLeaf | None = None

    def fields(self) -> list[Any]:
        previous = self.previous
        return [
            _leaf_fields(self.leaf),
            self.index,
            encode_proof(self.proof),
            [
                [LINE_KINDS[line.kind], line.id, line.digest, line.amount.to_bytes(16)]
                for line in self.lines
            ],
            None
            if previous is None
            else [_leaf_fields(previous.leaf), previous.index, encode_proof(previous.proof)],
        ]


@dataclass(frozen=True, slots=True)
class CreditBundle:
    """`pricing` is the encoded Pricing of the epoch. `statements` are of one account, one for each
    role it ever earned in; `receipts` are signed blobs as their owners sent them, and each stands
    in a line by its digest.
    """

    chain_id: int
    ledger: bytes
    epoch: int
    pricing: bytes
    statements: tuple[Statement, ...]
    receipts: tuple[bytes, ...] = field(default=())

    @property
    def account(self) -> bytes:
        return self.statements[0].leaf.account

    def encode(self) -> bytes:
        statements = [statement.fields() for statement in self.statements]
        head = [BUNDLE_VERSION, self.chain_id, self.ledger, self.epoch, self.pricing]
        return bytes(msgpack.packb([*head, statements, list(self.receipts)]))

    @classmethod
    def decode(cls, raw: bytes) -> CreditBundle:
        """Raises ProtocolError: "oversized" beyond 64 MiB, else "malformed"."""
        if len(raw) > BUNDLE_BYTES_MAX:
            raise ProtocolError("oversized", "the bundle is larger than 64 MiB")
        try:
            fields = msgpack.unpackb(raw, strict_map_key=True)
        except Exception as error:  # msgpack raises many kinds, among them bare ValueError
            raise ProtocolError("malformed", f"the bundle is no msgpack: {error}") from None
        if isinstance(fields, list) and fields and fields[0] != BUNDLE_VERSION:
            raise ProtocolError("malformed", f"bundle version {fields[0]!r} is not known")
        _, chain_id, ledger, epoch, pricing, statements, receipts = _check_list(
            fields, _FIELDS, "bundle"
        )
        if not isinstance(statements, list) or not 0 < len(statements) <= STATEMENTS_MAX:
            raise ProtocolError("malformed", f"a bundle has 1 to {STATEMENTS_MAX} statements")
        return cls(
            chain_id=_number(chain_id, 63),
            ledger=_bytes(ledger, ADDRESS_BYTES),
            epoch=_number(epoch, 32),
            pricing=_pricing(pricing),
            statements=tuple(_statement(statement) for statement in statements),
            receipts=tuple(_receipt(receipt) for receipt in _bounded(receipts)),
        )


def _leaf_fields(leaf: CreditLeaf) -> list[Any]:
    return [
        leaf.account,
        leaf.role,
        leaf.cumulative.to_bytes(16),
        leaf.epoch_credit.to_bytes(16),
        leaf.receipts_root,
    ]


def _statement(raw: Any) -> Statement:
    leaf, index, proof, lines, previous = _check_list(raw, 5, "statement")
    return Statement(
        leaf=_leaf(leaf),
        index=_number(index, 32),
        proof=decode_proof(_bytes(proof)),
        lines=tuple(_line(line) for line in _bounded(lines)),
        previous=None if previous is None else _previous(previous),
    )


def _leaf(raw: Any) -> CreditLeaf:
    account, role, cumulative, epoch_credit, root = _check_list(raw, 5, "leaf")
    return CreditLeaf(
        _bytes(account, 32),
        _number(role, 8),
        _amount(cumulative),
        _amount(epoch_credit),
        _bytes(root, 32),
    )


def _line(raw: Any) -> CreditLine:
    kind, line_id, digest, amount = _check_list(raw, 4, "line")
    name = _KIND_NAMES.get(_number(kind, 8))
    if name is None:
        raise ProtocolError("malformed", f"no kind of line has number {kind}")
    return CreditLine(name, _bytes(line_id, 16), _bytes(digest, 32), _amount(amount))


def _previous(raw: Any) -> PreviousLeaf:
    leaf, index, proof = _check_list(raw, 3, "previous leaf")
    return PreviousLeaf(_leaf(leaf), _number(index, 32), decode_proof(_bytes(proof)))


def _receipt(raw: Any) -> bytes:
    blob = _bytes(raw)
    if len(blob) > RECEIPT_BYTES_MAX:
        raise ProtocolError("oversized", "a receipt of more than 4096 bytes")
    return blob


def _pricing(raw: Any) -> bytes:
    document = _bytes(raw)
    if len(document) > PRICING_BYTES_MAX:
        raise ProtocolError("oversized", "the rules are larger than a message")
    return document


def _check_list(raw: Any, size: int, what: str) -> list[Any]:
    if not isinstance(raw, list) or len(raw) != size:
        raise ProtocolError("malformed", f"a {what} is not a list of {size} fields")
    return raw


def _bounded(raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise ProtocolError("malformed", "lines and receipts are lists")
    if len(raw) > LINES_MAX:
        raise ProtocolError("oversized", f"more than {LINES_MAX} lines or receipts")
    return raw


def _number(raw: Any, bits: int) -> int:
    if type(raw) is not int or raw < 0 or raw >> bits:
        raise ProtocolError("malformed", f"not a number of {bits} bits")
    return raw


def _amount(raw: Any) -> int:
    amount = int.from_bytes(_bytes(raw, 16))
    assert amount <= AMOUNT_MAX
    return amount


def _bytes(raw: Any, size: int | None = None) -> bytes:
    if not isinstance(raw, bytes) or (size is not None and len(raw) != size):
        raise ProtocolError("malformed", "not bytes of the right length")
    return raw
