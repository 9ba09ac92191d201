"""What a receipt is asked for by, at GET /v1/receipts/{id}.

Rounds publish tickets, a record holds prompt and answer, and where no key is asked for nothing else
tells one caller from another. So the ticket is half of the name; the other half follows from it in
this process only, and nobody else can make it.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from assay_protocol.messages import Ticket
from assay_protocol.signing import peek

if TYPE_CHECKING:
    from assay.records import ReceiptRecord

_NAMING: Final = secrets.token_bytes(32)  # a gateway forgets its receipts when it ends, too


def receipt_id(record: ReceiptRecord) -> str:
    """The ticket in hex, and the name that follows from it here."""
    ticket = peek(Ticket, record.ticket).ticket
    return f"{ticket.hex()}-{blake2b(ticket, key=_NAMING, digest_size=12).hexdigest()}"
