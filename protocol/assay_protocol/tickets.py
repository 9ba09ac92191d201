"""What a ticket allows and what it costs: the checks of all three parties, in one place.

The coordinator issues tickets (its core fills them in); the node admits jobs by them; the client
checks that it got what it asked for. Money is integers: a price is rounded up once per job.
"""

from __future__ import annotations

from assay_protocol.errors import ProtocolError
from assay_protocol.grammars import grammar_fits
from assay_protocol.hashing import nonce_commitment, prompt_hash, unpack_tokens
from assay_protocol.messages import StartJob, SubmitJob, Ticket
from assay_protocol.signing import ED25519, Verifier, open_signed


def job_price(ticket: Ticket, n_out: int) -> int:
    """Micro-credits for the ticket's prompt and `n_out` answer tokens, rounded up once.

    Of a job that embeds, for the texts that have their vectors: reading a prompt is work that an
    answer cut short has cost as well, texts that nobody read are none.
    """
    texts = ticket.sampler.texts
    n_in = ticket.n_in if texts is None else sum(texts[:n_out])
    thousandths = n_in * ticket.price_in + n_out * ticket.price_out
    return -(-thousandths // 1000)


def reserve_price(ticket: Ticket) -> int:
    """The most the job can cost."""
    return job_price(ticket, ticket.max_tokens)


def open_ticket(blob: bytes, coordinator: bytes, verifier: Verifier = ED25519) -> Ticket:
    """The ticket in `blob`, if `coordinator` signed it."""
    try:
        return open_signed(Ticket, blob, coordinator, verifier)
    except ProtocolError as error:
        code = "wrong_coordinator" if error.code == "bad_signature" else error.code
        raise ProtocolError(code) from error


def check_start(
    ticket: Ticket, start: StartJob, *, node: bytes, client: bytes, now_us: int
) -> tuple[int, ...]:
    """The prompt tokens of a job that `node` may start for `client` at `now_us`.

    Raises ProtocolError: ticket_not_mine, ticket_expired, nonce_mismatch, prompt_mismatch or
    grammar_mismatch.
    """
    if ticket.node != node or ticket.client != client:
        raise ProtocolError("ticket_not_mine")
    if now_us >= ticket.expires_at:
        raise ProtocolError("ticket_expired")
    if nonce_commitment(start.nonce) != ticket.nonce_commitment:
        raise ProtocolError("nonce_mismatch")
    if len(start.prompt) != 4 * ticket.n_in:
        raise ProtocolError("prompt_mismatch", "the prompt's length is not the ticket's")
    if prompt_hash(start.nonce, start.prompt) != ticket.prompt_hash:
        raise ProtocolError("prompt_mismatch")
    if not grammar_fits(ticket.sampler, start.nonce, start.grammar):
        raise ProtocolError("grammar_mismatch")
    return unpack_tokens(start.prompt)


def check_grant(ticket: Ticket, asked: SubmitJob, *, client: bytes) -> None:
    """Raise ProtocolError unless the ticket is the one `client` asked for."""
    same = (
        ticket.client == client
        and ticket.model == asked.model
        and ticket.prompt_hash == asked.prompt_hash
        and ticket.n_in == asked.n_in
        and ticket.sampler == asked.sampler
        and ticket.max_tokens == asked.max_tokens
        and ticket.nonce_commitment == asked.nonce_commitment
        and (not asked.only or ticket.node in asked.only)
        and ticket.node not in asked.exclude
    )
    if not same:
        raise ProtocolError("unexpected_message", "the ticket is not for the job asked for")
    if asked.resume is None and ticket.start:
        raise ProtocolError("unexpected_message", "a new job's ticket must start at 0")
    if asked.resume is None and ticket.seed_ticket != (asked.twin or ticket.ticket):
        raise ProtocolError("unexpected_message", "the ticket draws under another seed")
    if asked.twin == ticket.ticket:
        raise ProtocolError("ticket_replayed")
