"""What an answer is to the caller: pieces as they come, the whole, and the failure of one."""

from __future__ import annotations

from dataclasses import dataclass

from assay.records import ReceiptRecord
from assay.verdicts import Verdict
from assay_protocol.errors import AssayError
from assay_protocol.logprobs import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Delta:
    """Freshly drawn `tokens` and the text they complete.

    The text is "" inside a character, and while it may be the beginning of a stop string.
    `logprobs` has an entry per token if they were asked for: the node's word, which no receipt
    covers. `reasoning` is text that the model wrote before its answer, of a model whose marks are
    known (reasoning_marks.py), and `reasoning_tokens` the number of `tokens` within the marks.
    """

    text: str
    tokens: tuple[int, ...]
    node: bytes
    logprobs: tuple[TokenLogprobs, ...] = ()
    reasoning: str = ""
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the prompt as asked and of the answer as given, and how many of those the model
    reasoned with."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer.

    `finish_reason` is stop, length, cancelled or failed. `receipts` has one record per node that
    signed for its part; `nodes` are all that drew tokens, in order: more than receipts means that
    some vanished before they could sign. After a stop string, which `stop` names, `finish_reason`
    is stop and `text` ends before it; `tokens` are all that were signed for and are paid, the
    string's among them. `logprobs` are those of the tokens that were read. `prompt_logprobs`, where
    they were asked for, have an entry for each token of the prompt, None for the first, which
    nothing comes before; the receipt has a hash of them.

    `final`: nothing more is awaited. With verify="now" that is so once an audit passed, which
    `verdict` tells; with verify="quorum" `twins` are the records of the second drawing.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    usage: Usage
    receipts: tuple[ReceiptRecord, ...]
    nodes: tuple[bytes, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    final: bool = True
    verdict: Verdict | None = None
    twins: tuple[ReceiptRecord, ...] = ()
    stop: str | None = None
    attempts: int = 1  # tickets that were asked for
    reasoning: str = ""  # what the model wrote before `text`; its tokens are among `tokens`
    prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()


class JobFailed(AssayError):
    """The job ended without its answer; `partial` is what came before."""

    def __init__(self, cause: AssayError, partial: Completion) -> None:
        super().__init__(cause.code, cause.message, retry_after_ms=cause.retry_after_ms)
        self.partial = partial


class NotVerified(JobFailed):
    """The whole answer came and is in `partial`, but its audit did not pass.

    The code is "audit_failed" if that speaks against the node, "audit_missing" if nothing was
    decided, or that of the question's failure. `verdict` is what was told.
    """

    def __init__(self, cause: AssayError, partial: Completion, verdict: Verdict) -> None:
        super().__init__(cause, partial)
        self.verdict = verdict


class AnswersDiffer(JobFailed):
    """Two nodes disagreed: `partial` has what both drew; its `receipts` and `twins` are evidence.

    The code is "answers_differ"; the message says at which token, and what that can mean.
    """
