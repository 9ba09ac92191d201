"""What a follower prints against a producer that sealed twice is what the court takes."""

from __future__ import annotations

from assay_contracts import calls
from assay_contracts.ed25519_hints import hinted
from assay_contracts.follow.following import Evidence
from assay_protocol.seals import seal_block
from contracts.courtroom import ACCUSER, COURT, CULPRIT, KEY, courtroom

CHAIN, HEIGHT = 0xA55A, 4711


def test_the_evidence_takes_the_bond() -> None:
    evm = courtroom(jurors=0)
    first, second = (seal_block(CULPRIT, CHAIN, HEIGHT, bytes([n]) * 32) for n in (1, 2))
    document = Evidence(KEY, CHAIN, HEIGHT, first, second).document()
    messages = [bytes.fromhex(text) for text in document["messages"]]
    signatures = [hinted(KEY, bytes.fromhex(text)) for text in document["signatures"]]
    arguments = [KEY, messages[0], signatures[0], messages[1], signatures[1]]
    before = evm.ask("NodeRegistry", "bondOf", KEY)
    evm.send(ACCUSER, COURT, "equivocation", *arguments)
    assert evm.ask("NodeRegistry", "bondOf", KEY) == before - evm.wiring.equivocation_penalty


def test_the_call_data_is_of_these_very_arguments() -> None:
    first, second = (seal_block(CULPRIT, CHAIN, HEIGHT, bytes([n]) * 32) for n in (1, 2))
    document = Evidence(KEY, CHAIN, HEIGHT, first, second).document()
    messages = [bytes.fromhex(text) for text in document["messages"]]
    signatures = [hinted(KEY, bytes.fromhex(text)) for text in document["signatures"]]
    wanted = calls.encode(
        COURT, "equivocation", KEY, messages[0], signatures[0], messages[1], signatures[1]
    )
    assert document["call"] == wanted.hex()
