"""What a numerics class promises of a node's answers: its id's last part, and nothing else of it.

    .../E   exact: decode and replay give the same bits
    .../F   float: they differ by arithmetic noise
    .../L   logprobs: the engine tells logprobs only, so the leaves hold them, and it cannot replay
    .../U   nothing: answers of this class cannot be audited

A class ending in anything else is treated as float. A wrong promise earns nothing: all but U are
audited by what they promise (docs/decisions/0004-other-engines.md).
"""

from __future__ import annotations

from typing import Final

LOGPROB_LEAVES: Final = "logprob"  # AuditTask.leaves; without it leaves hold raw logits


def is_exact(class_id: str) -> bool:
    """Whether engines of this class agree bit for bit."""
    return class_id.endswith("/E")


def holds_logprobs(class_id: str) -> bool:
    """Whether leaves hold logprobs of the drawn tokens instead of their raw logits."""
    return class_id.endswith("/L")


def can_be_audited(class_id: str) -> bool:
    """Whether a replay can tell anything about this class's answers."""
    return not class_id.endswith("/U")


def can_audit(class_id: str) -> bool:
    """Whether such an engine can teacher-force another node's answer."""
    return not class_id.endswith(("/L", "/U"))
