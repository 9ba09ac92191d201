"""What an answer is to the caller: pieces as they come, the whole, and the failure of one."""

from __future__ import annotations

from dataclasses import dataclass

from assay.records import ReceiptRecord
from assay_protocol.errors import AssayError
from assay_protocol.logprobs import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Delta:
    """Freshly drawn `tokens` and the text they complete.

    The text is "" inside a character, and while it may be the beginning of a stop string.
    `logprobs` has an entry per token if they were asked for: the node's word, which no receipt
    covers.
    """

    text: str
    tokens: tuple[int, ...]
    node: bytes
    logprobs: tuple[TokenLogprobs, ...] = ()


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
    some vanished before they could sign. After a stop string `finish_reason` is stop and `text`
    ends before it; `tokens` are all that were signed for and are paid, the string's among them.
    `logprobs` are those of the tokens that were read.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    usage: Usage
    receipts: tuple[ReceiptRecord, ...]
    nodes: tuple[bytes, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()


class JobFailed(AssayError):
    """The job ended without its answer; `partial` is what came before."""

    def __init__(self, cause: AssayError, partial: Completion) -> None:
        super().__init__(cause.code, cause.message, retry_after_ms=cause.retry_after_ms)
        self.partial = partial
