"""Every reason to refuse a job, and that none of them uses the ticket up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.core.admission import Admission, Standing
from assay_node.core.parameters import Parameters
from assay_protocol.codec import encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.hashing import pack_tokens
from assay_protocol.messages import Done, StartJob, Ticket
from assay_protocol.signing import Identity, seal
from node.core.node_bench import (
    CLIENT,
    COORDINATOR,
    MODEL,
    NODE,
    NOW,
    SAMPLER,
    SECOND,
    SERVED,
    make_ticket,
    nonce_of,
)

PROMPT = pack_tokens((5, 6, 7))
IDLE = Standing(running={})


def admission(**bounds: Any) -> Admission:
    return Admission(
        coordinator=COORDINATOR.public_key,
        node=NODE.public_key,
        served={MODEL: SERVED},
        parameters=Parameters(queue_max=1, **bounds),
    )


def first_frame(job: Ticket, **changes: Any) -> bytes:
    nonce = nonce_of(int.from_bytes(job.ticket, "big"))
    start = StartJob(ticket=seal(COORDINATOR, job), nonce=nonce, prompt=PROMPT)
    return encode(replace(start, **changes))


def refusal(
    gate: Admission,
    frame: bytes,
    standing: Standing = IDLE,
    now: int = NOW,
    client: bytes = CLIENT.public_key,
) -> AssayError:
    with pytest.raises(AssayError) as caught:
        gate.admit(now, frame, client, standing)
    return caught.value


def test_a_good_job_is_admitted() -> None:
    ticket = make_ticket(1)
    admitted = admission().admit(NOW, first_frame(ticket), CLIENT.public_key, IDLE)
    assert admitted.ticket == ticket
    assert admitted.prompt == (5, 6, 7)


BAD_TICKETS: dict[str, dict[str, Any]] = {
    "ticket_not_mine": {"node": b"x" * 32},
    "model_unknown": {"model": b"x" * 32},
    "prompt_too_long": {"max_tokens": 62},
    "sampler_refused": {"sampler": replace(SAMPLER, stop_tokens=(1 << 20,))},
    "nonce_mismatch": {"nonce_commitment": b"x" * 32},
    "prompt_mismatch": {"prompt_hash": b"x" * 32},
    "malformed": {"start": 4},
}


@pytest.mark.parametrize("code", BAD_TICKETS)
def test_a_ticket_that_does_not_fit_is_refused_by_name(code: str) -> None:
    gate = admission()
    assert refusal(gate, first_frame(make_ticket(1, **BAD_TICKETS[code]))).code == code
    gate.admit(NOW, first_frame(make_ticket(1)), CLIENT.public_key, IDLE)


BAD_STARTS: dict[str, tuple[bytes, str]] = {
    "other message": (encode(Done()), "unexpected_message"),
    "no message": (b"\xc1", "malformed"),
    "forged": (
        first_frame(make_ticket(1), ticket=seal(Identity(b"\x09" * 32), make_ticket(1))),
        "wrong_coordinator",
    ),
    "short prompt": (first_frame(make_ticket(1), prompt=PROMPT[:8]), "prompt_mismatch"),
    "other prompt": (first_frame(make_ticket(1), prompt=PROMPT[::-1]), "prompt_mismatch"),
    "other nonce": (first_frame(make_ticket(1), nonce=b"x" * 32), "nonce_mismatch"),
}


@pytest.mark.parametrize("name", BAD_STARTS)
def test_a_frame_that_does_not_fit_is_refused_by_name(name: str) -> None:
    frame, code = BAD_STARTS[name]
    assert refusal(admission(), frame).code == code


def test_another_client_cannot_use_the_ticket() -> None:
    frame = first_frame(make_ticket(1))
    assert refusal(admission(), frame, client=b"x" * 32).code == "ticket_not_mine"


def test_an_expired_ticket_is_refused_at_its_last_microsecond() -> None:
    ticket = make_ticket(1)
    assert refusal(admission(), first_frame(ticket), now=ticket.expires_at).code == "ticket_expired"
    admission().admit(ticket.expires_at - 1, first_frame(ticket), CLIENT.public_key, IDLE)


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    ticket = make_ticket(1, prompt=(5, 6, 100))
    frame = first_frame(ticket, prompt=pack_tokens((5, 6, 100)))
    assert refusal(admission(), frame).code == "malformed"


def test_a_ticket_runs_once() -> None:
    gate, frame = admission(), first_frame(make_ticket(1))
    gate.admit(NOW, frame, CLIENT.public_key, IDLE)
    assert refusal(gate, frame).code == "ticket_replayed"


@pytest.mark.parametrize("code", ["draining", "suspended", "not_registered", "disk_full"])
def test_a_closed_node_says_why(code: str) -> None:
    gate, frame = admission(), first_frame(make_ticket(1))
    assert refusal(gate, frame, Standing({}, code)).code == code


def test_a_full_node_is_busy_and_the_ticket_stays_good() -> None:
    gate, frame = admission(), first_frame(make_ticket(1))
    error = refusal(gate, frame, Standing(running={MODEL: 3}))
    assert (error.code, error.retry_after_ms) == ("busy", 500)
    gate.admit(NOW, frame, CLIENT.public_key, Standing(running={MODEL: 2, bytes(32): 9}))


def test_used_tickets_are_bounded_and_forgotten_only_after_they_expire() -> None:
    gate = admission(tickets_max=2)
    for number in (1, 2):
        gate.admit(NOW, first_frame(make_ticket(number)), CLIENT.public_key, IDLE)
    assert refusal(gate, first_frame(make_ticket(3))).code == "busy"
    late = NOW + 600 * SECOND
    fresh = make_ticket(3, expires_at=late + 1)
    gate.admit(late, first_frame(fresh), CLIENT.public_key, IDLE)
    assert refusal(gate, first_frame(fresh), now=late).code == "ticket_replayed"


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        admission().admit(NOW, frame, CLIENT.public_key, IDLE)


def test_a_restarted_node_refuses_tickets_of_its_earlier_process() -> None:
    """It cannot know which of them it answered before it died (S2: never two receipts)."""
    ticket = make_ticket(1)
    joined = Standing(running={}, joined_at=ticket.issued_at + 1)
    assert refusal(admission(), first_frame(ticket), joined).code == "ticket_expired"
    just_now = Standing(running={}, joined_at=ticket.issued_at)
    admission().admit(NOW, first_frame(ticket), CLIENT.public_key, just_now)
