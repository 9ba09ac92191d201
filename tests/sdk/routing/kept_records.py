"""Receipt records as a client keeps them, made without a network."""

from __future__ import annotations

from assay import ReceiptRecord
from assay_protocol.hashing import pack_tokens
from assay_protocol.messages import Receipt, Ticket
from assay_protocol.signing import seal
from sdk.client_world import COORDINATOR, GREEDY, MODEL, NONCE, node_key


def made_record(*, n_in: int, n_out: int, price_in: int, price_out: int) -> ReceiptRecord:
    """One of so many tokens at these prices for 1000; its hashes are of nothing."""
    node, ticket = node_key(0), bytes(16)
    asked = Ticket(
        ticket=ticket,
        client=bytes(32),
        node=node.public_key,
        model=MODEL,
        prompt_hash=bytes(32),
        n_in=n_in,
        sampler=GREEDY,
        max_tokens=n_out,
        start=0,
        nonce_commitment=bytes(32),
        seed_ticket=ticket,
        price_in=price_in,
        price_out=price_out,
        issued_at=0,
        expires_at=1,
        epoch=1,
    )
    signed = Receipt(
        ticket=ticket,
        class_id="test/cpu",
        output_hash=bytes(32),
        root=bytes(32),
        n_in=n_in,
        n_out=n_out,
        finish="length",
        started_at=0,
        first_at=0,
        ended_at=1,
    )
    return ReceiptRecord(
        coordinator=COORDINATOR.public_key,
        ticket=seal(COORDINATOR, asked),
        receipt=seal(node, signed),
        nonce=NONCE,
        prompt=pack_tokens(range(n_in)),
        output=pack_tokens(range(n_out)),
    )
