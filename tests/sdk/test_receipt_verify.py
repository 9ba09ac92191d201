"""Offline verification: a true record passes, and every change to one is seen where it was made."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core import JobMachine
from assay.events import AskTicket, Begin, Granted, OpenStream, Received, SendFrame
from assay.records import ReceiptRecord, ReceiptStore, read_records, write_records
from assay.verify import verify, verify_answer
from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import pack_tokens
from assay_protocol.messages import Receipt, Ticket
from assay_protocol.signing import open_signed, seal
from sdk.client_world import (
    CLIENT,
    COORDINATOR,
    FakeCoordinator,
    FakeNode,
    make_job,
    node_key,
)


def make_records(lose_at: tuple[int, ...] = ()) -> list[ReceiptRecord]:
    """The records of one answer of 100 tokens whose nodes cancel after `lose_at` tokens each."""
    job, coordinator = make_job(), FakeCoordinator()
    machine = JobMachine(job, CLIENT, COORDINATOR.public_key)
    queue, node, lost = list(machine.handle(0, Begin())), None, list(lose_at)
    while machine.wake_at is not None:
        if queue:
            effect = queue.pop(0)
            if isinstance(effect, AskTicket):
                grant = coordinator.grant(effect.body)
                queue += machine.handle(0, Granted(effect.attempt, grant))
            elif isinstance(effect, OpenStream):
                node = FakeNode(effect.first)
            elif isinstance(effect, SendFrame):
                assert node is not None
                node.stream.receive(effect.frame)
            continue
        assert node is not None
        if lost and node.stream.count >= lost[0]:
            node.reason = "slow_reader"
            lost.pop(0)
        queue += machine.handle(0, Received(machine.attempt, node.step()))
    segments = queue[-1].outcome.segments  # type: ignore[union-attr]  # Ended comes last
    return [
        ReceiptRecord(
            coordinator=COORDINATOR.public_key,
            ticket=one.ticket,
            receipt=one.receipt or b"",
            nonce=job.nonce,
            prompt=pack_tokens(one.prompt),
            output=pack_tokens(one.tokens),
        )
        for one in segments
    ]


RECORD = make_records()[0]


def test_a_true_record_passes_and_says_what_it_cannot_check() -> None:
    result = verify(RECORD, COORDINATOR.public_key)
    assert result.ok
    assert [step.name for step in result.steps if step.ok is None] == ["leaves root"]
    assert result.price == -(-(3 * 1_000 + 100 * 2_000) // 1_000)


def _receipt(**changes: object) -> ReceiptRecord:
    node = node_key(0)
    receipt = open_signed(Receipt, RECORD.receipt, node.public_key)
    changed = replace(receipt, **changes)  # type: ignore[arg-type]  # tests name real fields
    return replace(RECORD, receipt=seal(node, changed))


def _ticket(**changes: object) -> ReceiptRecord:
    ticket = open_signed(Ticket, RECORD.ticket, COORDINATOR.public_key)
    changed = replace(ticket, **changes)  # type: ignore[arg-type]  # tests name real fields
    return replace(RECORD, ticket=seal(COORDINATOR, changed))


@pytest.mark.parametrize(
    ("record", "failed"),
    [
        (replace(RECORD, coordinator=b"\x09" * 32), ("ticket signature",)),
        (replace(RECORD, ticket=RECORD.ticket[:-1] + b"\x7f"), ("ticket signature",)),
        (replace(RECORD, receipt=RECORD.receipt[:70] + b"!" * 20), ("receipt signature",)),
        (_ticket(node=node_key(1).public_key), ("receipt signature",)),
        (replace(RECORD, nonce=b"\x09" * 32), ("seed", "prompt", "output")),
        (_ticket(nonce_commitment=b"\x09" * 32), ("seed",)),
        (replace(RECORD, prompt=RECORD.prompt[4:]), ("prompt",)),
        (replace(RECORD, prompt=b"\1\0\0\0" + RECORD.prompt[4:]), ("prompt",)),
        (replace(RECORD, output=RECORD.output[:-4]), ("output",)),
        (replace(RECORD, output=b"\1\0\0\0" + RECORD.output[4:]), ("output",)),
        (_receipt(n_out=99, finish="stop"), ("output",)),
        (_receipt(n_out=101), ("receipt fits ticket", "output")),
        (_receipt(n_in=4), ("receipt fits ticket",)),
        (_receipt(finish="why not"), ("receipt fits ticket",)),
        (_receipt(output_hash=b"\x09" * 32), ("output",)),
    ],
)
def test_every_tampering_is_seen(record: ReceiptRecord, failed: tuple[str, ...]) -> None:
    result = verify(record)
    assert not result.ok
    assert result.failed == failed


def test_a_record_is_not_valid_under_another_coordinator() -> None:
    assert verify(RECORD, b"\x09" * 32).failed == ("ticket signature",)


def test_the_parts_of_a_resumed_answer_meet() -> None:
    records = make_records(lose_at=(30, 30))
    assert len(records) == 3
    assert verify_answer(records).ok
    middle_missing = verify_answer([records[0], records[2]])
    assert middle_missing.ok
    assert "30 of them without" in middle_missing.steps[-1].detail
    assert verify_answer([records[1], records[0]]).failed == ("2: continues",)


def test_parts_of_two_answers_do_not_make_one() -> None:
    other = replace(RECORD, ticket=_ticket().ticket)
    assert verify_answer([RECORD, other]).failed == ("2: continues",)


def test_a_record_survives_its_bytes() -> None:
    assert ReceiptRecord.decode(RECORD.encode()) == RECORD
    assert read_records(write_records([RECORD, RECORD])) == (RECORD, RECORD)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_record_or_malformed(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ReceiptRecord.decode(data)


@given(st.integers(0, len(RECORD.encode()) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused_or_seen(at: int, flip: int) -> None:
    data = bytearray(RECORD.encode())
    data[at] ^= flip
    try:
        record = ReceiptRecord.decode(bytes(data))
    except ProtocolError:
        return
    assert not verify(record).ok


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 10, -1])
def test_a_cut_file_is_refused(cut: int) -> None:
    with pytest.raises(ProtocolError):
        read_records(write_records([RECORD])[:cut])


def test_the_store_only_appends_keeps_others_out_and_mends_a_torn_end(tmp_path: Path) -> None:
    store = ReceiptStore(tmp_path / "client" / "receipts")
    store.append([RECORD])
    with store.path.open("ab") as file:
        file.write(b"\0\0\1\0torn")
    ReceiptStore(store.path).append([RECORD])
    assert read_records(store.path.read_bytes()) == (RECORD, RECORD)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
