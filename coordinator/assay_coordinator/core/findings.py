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
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from assay_coordinator.core.calibration import Table
from assay_coordinator.core.evidence import FAILURE, FRESH, SUSPICION, Levels, combined, whole
from assay_coordinator.core.exactness import bits_equal
from assay_coordinator.core.sketch_evidence import NO_SKETCHES, last_share, near, sketch_ratios
from assay_coordinator.core.token_evidence import NO_TOKENS, token_ratios
from assay_protocol.codec import encode
from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import unpack_logits
from assay_protocol.leaves import Leaves, opened_root
from assay_protocol.limits import LEAF_TOKENS, SKETCH_BYTES
from assay_protocol.messages import AuditReveal, LeavesOpened, Receipt
from assay_protocol.sketches import check_finite, leaf_count, leaf_distances

HARD_MARGIN: Final = 2_000  # thousandths of a logit; honest margins stay below 600
LOGPROB_TOLERANCE: Final = 0.5  # median distance; honest noise is about 0.05
# The executor showed another transcript than it signed for: it withholds, which proves no lie.
WITHHOLDING: Final = frozenset(
    f"transcript_{what}"
    for what in ("unreadable", "length", "nonce", "prompt", "output", "grammar")
)


@dataclass(frozen=True, slots=True)
class Bound:
    """An auditor and what it bound itself to before it saw any leaf."""

    auditor: bytes
    class_id: str
    audit: bytes
    commitment: bytes
    statement: bytes  # signed


@dataclass(frozen=True, slots=True)
class Asked:
    """What auditors of a case were to do: replay so many tokens, and tell logprobs or sketches.

    Of a job that embeds, the tokens are vectors: nothing was drawn, so channel T says nothing.
    """

    tokens: int
    logprobs: bool = False
    model: bytes = b""  # none: judged by what a table says of every model
    vectors: bool = False


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
    if opened_root(opened, receipt) != receipt.root:
        raise ProtocolError("receipt_mismatch", "the leaves are not the root's")


def weigh(
    bound: Bound,
    receipt: Receipt,
    opened: LeavesOpened,
    reveal: AuditReveal,
    asked: Asked,
    table: Table,
) -> Finding:
    """The finding of a reveal whose commitment and the opening of whose leaves were checked.

    Raises ProtocolError if it is malformed, which is the auditor's fault.
    """
    blob = encode(reveal)
    if reveal.fault is not None:
        return Finding(bound, blob, reveal.fault)
    noise = table.noise(asked.model, receipt.class_id, bound.class_id)
    tokens = NO_TOKENS
    if asked.vectors:
        _gaps(reveal, 0)
    else:
        tokens = token_ratios(noise, _gaps(reveal, asked.tokens), reveal.mismatches)
    mine = Leaves(reveal.raws or b"", reveal.sketches or b"", reveal.logits)
    mine.check("/L" if asked.logprobs else "", asked.tokens)
    found = Finding(
        bound,
        blob,
        replayed=asked.tokens,
        mismatches=len(reveal.mismatches),
        hard=max(reveal.margins, default=0) > HARD_MARGIN,
    )
    if asked.logprobs:
        return _of_logprobs(found, tokens, opened, mine)
    distances = _distances(opened, mine)
    return replace(
        found,
        ratios=whole((*tokens, *sketch_ratios(noise, distances, last_share(asked.tokens)))),
        drift=math.fsum(distances) / max(1, len(distances)),
        equal=bits_equal(receipt.class_id, bound.class_id, opened, reveal),
        raws=mine.raws,
        sketches=mine.sketches,
    )


def _of_logprobs(
    found: Finding, tokens: tuple[float, ...], opened: LeavesOpened, mine: Leaves
) -> Finding:
    values, theirs = unpack_logits(mine.logits), unpack_logits(opened.logits)[: found.replayed]
    if not all(map(math.isfinite, values)):
        raise ProtocolError("malformed", "a logprob is no finite number")
    apart = logprob_distance(theirs, values) if len(theirs) == len(values) else math.inf
    return replace(
        found,
        ratios=whole((*tokens, *NO_SKETCHES)),
        drift=apart,
        far=apart > LOGPROB_TOLERANCE,
        logprobs=values,
    )


def _distances(opened: LeavesOpened, mine: Leaves) -> tuple[float, ...]:
    """Of each replayed leaf; infinite if the executor's hold logprobs where they are not taken."""
    check_finite(mine.sketches)
    if opened.sketches is None:
        return (math.inf,) * leaf_count(mine.sketches)
    return leaf_distances(opened.sketches[: len(mine.sketches)], mine.sketches)


def agree(table: Table, model: bytes, a: Finding, b: Finding) -> bool:
    """Two auditors computed the same: the same fault, or values as near as honest ones are."""
    if a.fault or b.fault:
        return a.fault == b.fault
    if a.logprobs or b.logprobs:
        least = min(len(a.logprobs), len(b.logprobs))
        return logprob_distance(a.logprobs[:least], b.logprobs[:least]) <= LOGPROB_TOLERANCE
    least = min(len(a.sketches), len(b.sketches))
    noise = table.noise(model, a.bound.class_id, b.bound.class_id)
    apart = leaf_distances(a.sketches[:least], b.sketches[:least])
    return near(noise, apart, last_share(least // SKETCH_BYTES))


def logprob_distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The largest median of |a - b| over leaves; what is no number is infinitely far."""
    if not a:
        return 0.0
    apart = [abs(x - y) for x, y in zip(a, b, strict=True)]
    apart = [x if math.isfinite(x) else math.inf for x in apart]
    starts = [*range(0, len(apart) - LEAF_TOKENS, LEAF_TOKENS), max(0, len(apart) - LEAF_TOKENS)]
    return max(median(apart[start : start + LEAF_TOKENS]) for start in starts)


def _gaps(reveal: AuditReveal, replayed: int) -> bytes:
    """The gaps of a reveal whose positions, margins and gaps fit what was replayed."""
    wrong, gaps = reveal.mismatches, reveal.gaps or b""
    if list(wrong) != sorted(set(wrong)) or (wrong and wrong[-1] >= replayed):
        raise ProtocolError("malformed", "mismatch positions")
    if len(reveal.margins) != len(wrong) or len(gaps) != replayed:
        raise ProtocolError("malformed", "a margin for each mismatch, a gap for each token")
    return gaps
