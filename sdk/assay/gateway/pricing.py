"""What a request can cost at most, before it is drawn, and what it did cost. In micro-credits.

A price is rounded up once per job (tickets.py), so the most is made job by job. A node that takes
over from another is paid for the prompt again, which nobody can foresee: what is settled is always
what receipts say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.records import ReceiptRecord
    from assay_protocol.messages import ModelSummary


def answers_most(
    summary: ModelSummary, jobs: Iterable[tuple[int, int]], *, each: int, twice: bool
) -> int:
    """Of `jobs`, each with its tokens in and the most out, drawn `each` times. `twice`: by two
    nodes."""
    once = sum(
        _rounded_up(tokens_in * summary.price_in + tokens_out * summary.price_out)
        for tokens_in, tokens_out in jobs
    )
    return once * each * (2 if twice else 1)


def vectors_most(summary: ModelSummary, texts: Sequence[Sequence[int]]) -> int:
    """Of texts to embed, however they are put into jobs: there is one for a text at most."""
    return _rounded_up(sum(map(len, texts)) * summary.price_in) + len(texts)


def paid(receipts: Iterable[ReceiptRecord]) -> int:
    """By the receipts that came."""
    return sum(record.credit for record in receipts)


def _rounded_up(thousandths: int) -> int:
    return -(-thousandths // 1000)
