"""Channel E: two engines of one exact class compute the same bits, so any difference is a finding.

It needs no calibration and has no noise. A difference alone is no proof of intent, as a bit of
memory may flip: it is confirmed by a second auditor of the class whose bits are the first one's.
"""

from __future__ import annotations

from assay_protocol.classes import is_exact
from assay_protocol.messages import AuditReveal, LeavesOpened


def bits_equal(
    executor: str, auditor: str, opened: LeavesOpened, reveal: AuditReveal
) -> bool | None:
    """Whether every revealed leaf's raw logits and every token are the executor's; None if the two
    are not of one exact class."""
    if executor != auditor or not is_exact(executor):
        return None
    mine, theirs = reveal.raws or b"", opened.raws or b""
    return not reveal.mismatches and theirs[: len(mine)] == mine
