"""What an answer is to the caller: pieces as they come, the whole, and the failure of one."""

from __future__ import annotations

from dataclasses import dataclass

from assay.records import ReceiptRecord
from assay_protocol.errors import AssayError


@dataclass(frozen=True, slots=True)
class Delta:
    """Freshly drawn `tokens` and the whole characters they complete ("" inside a character)."""

    text: str
    tokens: tuple[int, ...]
    node: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the prompt as asked and of the answer as given."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer.

    `finish_reason` is stop, length, cancelled or failed. `receipts` has one record per node that
    signed for its part; `nodes` are all that drew tokens, in order: more than receipts means that
    some vanished before they could sign.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    usage: Usage
    receipts: tuple[ReceiptRecord, ...]
    nodes: tuple[bytes, ...]


class JobFailed(AssayError):
    """The job ended without its answer; `partial` is what came before."""

    def __init__(self, cause: AssayError, partial: Completion) -> None:
        super().__init__(cause.code, cause.message, retry_after_ms=cause.retry_after_ms)
        self.partial = partial
