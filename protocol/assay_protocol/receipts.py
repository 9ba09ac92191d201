"""What a receipt claims and what of it is paid.

A receipt is the node's signed word on one ticket and does not repeat what that says: model, prompt,
sampler and, by the nonce it commits to, the seed. A coordinator that signs two tickets of one id is
caught by showing both. These are the checks that need no replay; whether the tokens are the model's
is for audits to say.
"""

from __future__ import annotations

from assay_protocol.errors import ProtocolError
from assay_protocol.limits import UNACKED_TOKENS_MAX
from assay_protocol.messages import FINISH_REASONS, Receipt, Ticket
from assay_protocol.prompt_logprobs import tells_prompt


def check_receipt(receipt: Receipt, ticket: Ticket) -> None:
    """Raise ProtocolError("receipt_mismatch") unless the receipt fits its ticket.

    Checks identity, counts, the reason for the end, that times are in order, and that the node says
    by which table of honest noise it is judged, and that it signs for logprobs of the prompt iff
    they were asked for.
    """
    for name in ("ticket", "n_in", "calibration"):
        if getattr(receipt, name) != getattr(ticket, name):
            raise ProtocolError("receipt_mismatch", f"{name} is not the ticket's")
    embeds = ticket.sampler.texts is not None
    if receipt.n_out > ticket.max_tokens:
        raise ProtocolError("receipt_mismatch", "more tokens than the ticket allows")
    if receipt.finish not in FINISH_REASONS or (embeds and receipt.finish == "stop"):
        raise ProtocolError("receipt_mismatch", "unknown reason for the end")
    if receipt.finish == "length" and receipt.n_out != ticket.max_tokens:
        raise ProtocolError("receipt_mismatch", "ended by length before the ticket's length")
    if (receipt.prompt_logprobs is not None) != tells_prompt(ticket):
        raise ProtocolError("receipt_mismatch", "logprobs of the prompt: signed for or asked for")
    if not receipt.started_at <= receipt.first_at <= receipt.ended_at:
        raise ProtocolError("receipt_mismatch", "times are out of order")


def payable_tokens(n_out: int, acked: int) -> int:
    """Answer tokens that are paid: what the client acknowledged and at most one window more.

    The node stops sending when the window is full, so an honest node loses nothing, and one that
    claims tokens nobody received gains at most the window.
    """
    return min(n_out, acked + UNACKED_TOKENS_MAX)
