"""Every reason to refuse a ticket, a grant or a receipt; prices and payable tokens."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol import hashing
from assay_protocol.embeddings import embedding_sampler
from assay_protocol.errors import ProtocolError
from assay_protocol.limits import UNACKED_TOKENS_MAX
from assay_protocol.messages import Progress, Receipt, ResumePoint, Sampler, StartJob, SubmitJob
from assay_protocol.receipts import check_receipt, payable_tokens
from assay_protocol.signing import seal
from assay_protocol.tickets import check_grant, check_start, job_price, open_ticket, reserve_price
from protocol_cases import CLIENT, COORDINATOR, NODE, NONCE, PROMPT, STRANGER, make_ticket

TICKET = make_ticket()
START = StartJob(ticket=seal(COORDINATOR, TICKET), nonce=NONCE, prompt=PROMPT)
ASKED = SubmitJob(
    model=TICKET.model,
    prompt_hash=TICKET.prompt_hash,
    n_in=TICKET.n_in,
    sampler=TICKET.sampler,
    max_tokens=TICKET.max_tokens,
    nonce_commitment=TICKET.nonce_commitment,
    exclude=(),
    only=(),
)
RECEIPT = Receipt(
    ticket=TICKET.ticket,
    class_id="x",
    output_hash=bytes(32),
    root=bytes(32),
    n_in=3,
    n_out=400,
    finish="length",
    started_at=1,
    first_at=2,
    ended_at=3,
)


def _start(ticket: Any = TICKET, now_us: int = 999, **changes: Any) -> tuple[int, ...]:
    parties = {"node": NODE.public_key, "client": CLIENT.public_key}
    return check_start(ticket, dataclasses.replace(START, **changes), now_us=now_us, **parties)


def _code(call: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(ProtocolError) as caught:
        call(*args, **named)
    return caught.value.code


def test_a_good_ticket_opens_and_starts() -> None:
    assert open_ticket(START.ticket, COORDINATOR.public_key) == TICKET
    assert _start() == (5, 6, 7)


def test_tickets_of_others_are_refused() -> None:
    assert _code(open_ticket, seal(STRANGER, TICKET), COORDINATOR.public_key) == "wrong_coordinator"
    progress = Progress(ticket=bytes(16), count=0, output_hash=bytes(32))
    assert (
        _code(open_ticket, seal(COORDINATOR, progress), COORDINATOR.public_key)
        == "wrong_coordinator"
    )


@pytest.mark.parametrize(
    ("ticket", "code"),
    [
        (make_ticket(node=STRANGER.public_key), "ticket_not_mine"),
        (make_ticket(client=STRANGER.public_key), "ticket_not_mine"),
        (make_ticket(expires_at=999), "ticket_expired"),
        (make_ticket(nonce_commitment=bytes(32)), "nonce_mismatch"),
        (make_ticket(n_in=4), "prompt_mismatch"),
        (make_ticket(prompt_hash=bytes(32)), "prompt_mismatch"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(ticket: Any, code: str) -> None:
    assert _code(_start, ticket) == code


def test_another_nonce_or_prompt_is_refused() -> None:
    assert _code(_start, nonce=bytes(32)) == "nonce_mismatch"
    assert _code(_start, prompt=hashing.pack_tokens((5, 6, 8))) == "prompt_mismatch"
    assert _code(_start, prompt=PROMPT[:-1]) == "prompt_mismatch"


@pytest.mark.parametrize(
    "changes",
    [
        {"client": STRANGER.public_key},
        {"model": b"x" * 32},
        {"prompt_hash": b"x" * 32},
        {"n_in": 4},
        {"sampler": Sampler(temperature=0.0, top_k=40, top_p=0.95, min_p=0.05)},
        {"max_tokens": 399},
        {"nonce_commitment": b"x" * 32},
        {"start": 1},
        {"seed_ticket": b"x" * 16},
    ],
)
def test_a_grant_of_another_job_is_refused(changes: dict[str, Any]) -> None:
    client = CLIENT.public_key
    check_grant(TICKET, ASKED, client=client)
    assert _code(check_grant, make_ticket(**changes), ASKED, client=client) == "unexpected_message"


def test_a_grant_keeps_the_choice_of_nodes() -> None:
    client = CLIENT.public_key
    excluded = dataclasses.replace(ASKED, exclude=(NODE.public_key,))
    assert _code(check_grant, TICKET, excluded, client=client) == "unexpected_message"
    others = dataclasses.replace(ASKED, only=(STRANGER.public_key,))
    assert _code(check_grant, TICKET, others, client=client) == "unexpected_message"
    check_grant(TICKET, dataclasses.replace(ASKED, only=(NODE.public_key,)), client=client)


def test_a_resumed_grant_may_start_later() -> None:
    resumed = dataclasses.replace(ASKED, resume=ResumePoint(ticket=b"a" * 16, count=2))
    later = make_ticket(start=2, seed_ticket=b"a" * 16)
    check_grant(later, resumed, client=CLIENT.public_key)


def test_a_fitting_receipt_passes() -> None:
    check_receipt(RECEIPT, TICKET)
    check_receipt(dataclasses.replace(RECEIPT, n_out=0, finish="cancelled"), TICKET)


@pytest.mark.parametrize(
    "changes",
    [
        {"ticket": b"x" * 16},
        {"n_in": 4},
        {"calibration": 1},
        {"n_out": 401},
        {"n_out": 399},  # by length, but not that long
        {"finish": "because"},
        {"started_at": 3},
        {"ended_at": 1},
    ],
)
def test_a_receipt_that_contradicts_its_ticket_is_refused(changes: dict[str, Any]) -> None:
    changed = dataclasses.replace(RECEIPT, **changes)
    assert _code(check_receipt, changed, TICKET) == "receipt_mismatch"


_COUNTS = st.integers(0, 1 << 31)
_PRICES = st.integers(0, 1 << 40)


@given(_COUNTS, _PRICES, _PRICES, st.integers(0, 400))
def test_prices_round_up_once_and_never_exceed_the_reserve(
    n_in: int, price_in: int, price_out: int, n_out: int
) -> None:
    ticket = make_ticket(n_in=n_in, price_in=price_in, price_out=price_out)
    exact = n_in * price_in + n_out * price_out
    price = job_price(ticket, n_out)
    assert exact <= price * 1_000 < exact + 1_000
    assert price <= reserve_price(ticket)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=40), _PRICES, st.integers(0, 40))
def test_texts_without_a_vector_cost_nothing(lengths: list[int], price_in: int, n_out: int) -> None:
    """Else a node could answer the first one, end the job and be paid for all."""
    ticket = make_ticket(
        n_in=sum(lengths),
        max_tokens=len(lengths),
        sampler=embedding_sampler(lengths),
        price_in=price_in,
        price_out=0,
    )
    exact = sum(lengths[:n_out]) * price_in
    assert exact <= job_price(ticket, n_out) * 1_000 < exact + 1_000
    whole = job_price(ticket, len(lengths))
    assert whole == reserve_price(ticket) == -(-sum(lengths) * price_in // 1_000)


@given(_COUNTS, _COUNTS)
def test_payable_is_what_was_acked_and_at_most_a_window(n_out: int, acked: int) -> None:
    paid = payable_tokens(n_out, acked)
    assert paid <= n_out
    assert paid <= acked + UNACKED_TOKENS_MAX
    assert paid == n_out or paid > acked
