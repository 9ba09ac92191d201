"""What one auditor's reveal says of an answer, weighed by all channels.

    T  tokens given their gaps   token_evidence.py      every class
    S  sketches                  sketch_evidence.py     all but /L
    E  the bits                  exactness.py           both of one exact class
    hard: a token was behind by more than HARD_MARGIN logits, which no drift explains
    far:  logprobs are apart     classes ending in /L

The executor committed to its leaves in the receipt's root and the auditor to its reveal before
those are opened, so who computed nothing cannot agree with anybody.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Final

from assay_coordinator.core.calibration import Table
from assay_coordinator.core.evidence import FAILURE, FRESH, SUSPICION, Levels, combined, whole
from assay_coordinator.core.exactness import bits_equal
from assay_coordinator.core.sketch_evidence import near, sketch_ratios
from assay_coordinator.core.token_evidence import token_ratios
from assay_protocol.classes import holds_logprobs
from assay_protocol.codec import encode
from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import leaves_root, sketched_root, unpack_logits
from assay_protocol.limits import LEAF_TOKENS, SKETCH_BYTES
from assay_protocol.messages import AuditReveal, LeavesOpened, Receipt
from assay_protocol.sketches import leaf_distances

HARD_MARGIN: Final = 2_000  # thousandths of a logit; honest margins stay below 600
LOGPROB_TOLERANCE: Final = 0.5  # median distance; honest noise is about 0.05
# The executor showed another transcript than it signed for: it withholds, which proves no lie.
WITHHOLDING: Final = frozenset(
    f"transcript_{what}"
    for what in ("unreadable", "length", "nonce", "prompt", "output", "grammar")
)
_DIGEST: Final = 32


@dataclass(frozen=True, slots=True)
class Bound:
    """An auditor and what it bound itself to before it saw any leaf."""

    auditor: bytes
    class_id: str
    audit: bytes
    commitment: bytes
    statement: bytes  # signed


@dataclass(frozen=True, slots=True)
class Finding:
    """One auditor's word. `evidence` is in micro-nats; `equal` is None unless bits can be compared.

    `sketches` and `logprobs` are the auditor's own, to be compared with other auditors'.
    """

    bound: Bound
    reveal: bytes  # encoded
    fault: str = ""
    replayed: int = 0
    mismatches: int = 0
    ratios: Levels = FRESH
    drift: float = 0.0
    hard: bool = False
    far: bool = False
    equal: bool | None = None
    raws: bytes = b""
    sketches: bytes = b""
    logprobs: tuple[float, ...] = ()

    @property
    def auditor(self) -> bytes:
        return self.bound.auditor

    @property
    def evidence(self) -> int:
        return combined(self.ratios)

    @property
    def withholding(self) -> bool:
        return self.fault in WITHHOLDING

    @property
    def wrong(self) -> bool:
        """It says that this is not the model's answer, and not by a near thing."""
        return bool(self.fault) or self.hard or self.far or self.evidence >= FAILURE

    @property
    def doubtful(self) -> bool:
        """Not wrong, but another auditor should look."""
        return not self.wrong and (self.equal is False or self.evidence >= SUSPICION)


def check_opening(receipt: Receipt, opened: LeavesOpened) -> None:
    """Raise ProtocolError unless the opened leaves are those the receipt's root committed to."""
    hashes = _cut(opened.hashes)
    if hashes and hashes[-1] != receipt.output_hash:
        raise ProtocolError("receipt_mismatch", "the opening ends on another hash")
    if holds_logprobs(receipt.class_id):
        fits = len(opened.logits) == 4 * receipt.n_out
        root = leaves_root(hashes, opened.logits)
    else:
        sketches = opened.sketches or b""
        fits = len(sketches) == SKETCH_BYTES * receipt.n_out
        root = sketched_root(hashes, _cut(opened.raws or b""), sketches)
    if not fits or root != receipt.root:
        raise ProtocolError("receipt_mismatch", "the leaves are not the root's")


def weigh(
    bound: Bound,
    receipt: Receipt,
    opened: LeavesOpened,
    reveal: AuditReveal,
    replayed: int,
    table: Table,
) -> Finding:
    """The finding of a reveal of the first `replayed` tokens, whose commitment was checked.

    Raises ProtocolError if it is malformed, which is the auditor's fault.
    """
    blob = encode(reveal)
    if reveal.fault is not None:
        return Finding(bound, blob, reveal.fault)
    noise = table.noise(receipt.model, receipt.class_id, bound.class_id)
    gaps = _checked(reveal, replayed)
    tokens = token_ratios(noise, gaps, reveal.mismatches)
    hard = max(reveal.margins, default=0) > HARD_MARGIN
    count = len(reveal.mismatches)
    if holds_logprobs(receipt.class_id):
        mine = _logprobs(reveal.logits, replayed)
        apart = logprob_distance(unpack_logits(opened.logits)[:replayed], mine)
        ratios = whole((*tokens, *sketch_ratios(noise, ())))
        return Finding(
            bound, blob, "", replayed, count, ratios, apart, hard,
            apart > LOGPROB_TOLERANCE, logprobs=mine,
        )  # fmt: skip
    mine_sketched, raws = _sketched(reveal, replayed)
    distances = leaf_distances((opened.sketches or b"")[: len(mine_sketched)], mine_sketched)
    return Finding(
        bound=bound,
        reveal=blob,
        replayed=replayed,
        mismatches=count,
        ratios=whole((*tokens, *sketch_ratios(noise, distances))),
        drift=sum(distances) / max(1, len(distances)),
        hard=hard,
        equal=bits_equal(receipt.class_id, bound.class_id, opened, reveal),
        raws=raws,
        sketches=mine_sketched,
    )


def agree(table: Table, model: bytes, a: Finding, b: Finding) -> bool:
    """Two auditors computed the same: the same fault, or values as near as honest ones are."""
    if a.fault or b.fault:
        return a.fault == b.fault
    if a.logprobs or b.logprobs:
        least = min(len(a.logprobs), len(b.logprobs))
        return logprob_distance(a.logprobs[:least], b.logprobs[:least]) <= LOGPROB_TOLERANCE
    least = min(len(a.sketches), len(b.sketches))
    noise = table.noise(model, a.bound.class_id, b.bound.class_id)
    return near(noise, leaf_distances(a.sketches[:least], b.sketches[:least]))


def logprob_distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The largest median of |a - b| over leaves; what is no number is infinitely far."""
    if not a:
        return 0.0
    apart = [abs(x - y) for x, y in zip(a, b, strict=True)]
    apart = [x if math.isfinite(x) else math.inf for x in apart]
    starts = [*range(0, len(apart) - LEAF_TOKENS, LEAF_TOKENS), max(0, len(apart) - LEAF_TOKENS)]
    return max(median(apart[start : start + LEAF_TOKENS]) for start in starts)


def _checked(reveal: AuditReveal, replayed: int) -> bytes:
    """The gaps of a reveal whose positions, margins and gaps fit what was replayed."""
    wrong, gaps = reveal.mismatches, reveal.gaps or b""
    if list(wrong) != sorted(set(wrong)) or (wrong and wrong[-1] >= replayed):
        raise ProtocolError("malformed", "mismatch positions")
    if len(reveal.margins) != len(wrong) or len(gaps) != replayed:
        raise ProtocolError("malformed", "a margin for each mismatch, a gap for each token")
    return gaps


def _logprobs(data: bytes, replayed: int) -> tuple[float, ...]:
    values = unpack_logits(data)
    if len(values) != replayed or not all(map(math.isfinite, values)):
        raise ProtocolError("malformed", "one finite logprob for each token")
    return values


def _sketched(reveal: AuditReveal, replayed: int) -> tuple[bytes, bytes]:
    """The sketches and the leaves' digests, if there are as many as tokens were replayed."""
    sketches, raws = reveal.sketches or b"", reveal.raws or b""
    leaves = -(-replayed // LEAF_TOKENS)
    if len(sketches) != SKETCH_BYTES * replayed or len(raws) != _DIGEST * leaves:
        raise ProtocolError("malformed", "a sketch for each token, a digest for each leaf")
    leaf_distances(sketches, sketches)  # raises unless all of its numbers are finite
    return sketches, raws


def _cut(data: bytes) -> list[bytes]:
    if len(data) % _DIGEST:
        raise ProtocolError("receipt_mismatch", "digests come in 32 bytes")
    return [data[i : i + _DIGEST] for i in range(0, len(data), _DIGEST)]
