"""Two statements of one key about one thing cost its bond; nothing else does."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import eth_abi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_contracts import calls
from assay_contracts.ed25519_hints import signed
from assay_contracts.follow.equivocation import equivocation_call
from assay_protocol.codec import encode
from assay_protocol.errors import AssayError
from assay_protocol.messages import Progress, Receipt, Seal
from assay_protocol.signing import Identity, seal
from contracts.courtroom import (
    ACCUSER,
    COURT,
    CULPRIT,
    KEY,
    RECEIPT,
    SEAL,
    courtroom,
    receipts,
    two,
)
from contracts.network_evm import NetworkEvm

ROOM = courtroom(jurors=0)
OTHER = Identity(bytes([67]) * 32)
OTHER_SEAL = replace(SEAL, digest=bytes([3]) * 32)


@pytest.fixture
def evm() -> Iterator[NetworkEvm]:
    with ROOM.undone():
        yield ROOM


def bond(evm: NetworkEvm) -> int:
    held: int = evm.ask("NodeRegistry", "bondOf", KEY)
    return held


@pytest.mark.parametrize(
    "pair",
    [
        receipts(),
        receipts(calibration=0),
        receipts(calibration=127),
        receipts(calibration=128),
        receipts(calibration=65_535),
        receipts(calibration=65_536),
        receipts(calibration=1 << 31),
        (RECEIPT, replace(RECEIPT, calibration=9)),
        receipts(root=bytes([9]) * 32),
        receipts(prompt_logprobs=bytes([9]) * 32),
        receipts(calibration=300, prompt_logprobs=bytes([9]) * 32),
        (SEAL, OTHER_SEAL),
    ],
    ids=str,
)
def test_two_statements_of_one_subject_are_slashed(evm: NetworkEvm, pair: tuple[Any, Any]) -> None:
    before = evm.balance(ACCUSER)
    evm.send(ACCUSER, COURT, "equivocation", *two(*pair))
    assert bond(evm) == 200 - evm.wiring.equivocation_penalty
    assert evm.balance(ACCUSER) - before == evm.wiring.equivocation_penalty // 4
    ((name, event),) = evm.events(COURT)
    assert name == "Equivocated"
    assert (event["key"], event["reporter"], event["taken"]) == (KEY, ACCUSER, 150)


def test_the_product_s_own_call_is_accepted(evm: NetworkEvm) -> None:
    a, b = (seal(CULPRIT, one) for one in receipts(calibration=3))
    name, *arguments = calls_of(equivocation_call(Receipt, KEY, a, b))
    assert name == "equivocation"
    evm.send(ACCUSER, COURT, "equivocation", *arguments)
    assert bond(evm) == 50


def calls_of(data: bytes) -> list[Any]:
    signature = "(bytes32,bytes32,uint256,uint256)"
    types = ["bytes32", "bytes", signature, "bytes", signature]
    values = eth_abi.decode(types, data[4:])
    assert data == calls.encode(COURT, "equivocation", *values)
    return ["equivocation", *values]


def test_what_does_not_contradict_itself_makes_no_call() -> None:
    first, second = (seal(CULPRIT, one) for one in receipts())
    strange = seal(OTHER, receipts()[1])
    elsewhere = seal(CULPRIT, replace(RECEIPT, ticket=bytes(16)))
    for b, code in ((first, "malformed"), (elsewhere, "malformed"), (strange, "bad_signature")):
        with pytest.raises(AssayError) as caught:
            equivocation_call(Receipt, KEY, first, b)
        assert caught.value.code == code
    assert equivocation_call(Receipt, KEY, first, second)


PAIR = receipts()
TICKETS_SEAL = replace(SEAL, subject=RECEIPT.ticket + bytes(16))
OURS, THEIRS = two(*PAIR), two(*PAIR, key=OTHER, other=OTHER)
WRONG: list[tuple[str, list[Any], str]] = [
    ("the same bytes twice", two(PAIR[0], PAIR[0]), "SameStatement"),
    ("another ticket", two(RECEIPT, replace(RECEIPT, ticket=bytes(16))), "OtherSubject"),
    ("another block", two(SEAL, replace(OTHER_SEAL, subject=bytes(32))), "OtherSubject"),
    ("another kind", two(RECEIPT, SEAL), "OtherSubject"),
    ("another kind of one subject", two(RECEIPT, TICKETS_SEAL), "OtherSubject"),
    ("another key's second", [*OURS[:3], *THEIRS[3:]], "BadSignature"),
    ("another key's first", [KEY, *THEIRS[1:3], *OURS[3:]], "BadSignature"),
    ("no signatures of that key", [OTHER.public_key, *OURS[1:]], "BadSignature"),
    ("the signatures swapped", [OURS[i] for i in (0, 1, 4, 3, 2)], "BadSignature"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "error"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_nothing_else_is_slashed(evm: NetworkEvm, arguments: list[Any], error: str) -> None:
    assert evm.refused(ACCUSER, COURT, "equivocation", *arguments) == error
    assert bond(evm) == 200


def test_one_thing_is_slashed_once(evm: NetworkEvm) -> None:
    pair = receipts()
    evm.send(ACCUSER, COURT, "equivocation", *two(*pair))
    third = replace(RECEIPT, n_out=5)
    for again in (two(*pair), two(*reversed(pair)), two(pair[0], third)):
        assert evm.refused(ACCUSER, COURT, "equivocation", *again) == "AlreadyPunished"
    evm.send(ACCUSER, COURT, "equivocation", *two(SEAL, OTHER_SEAL))  # another thing
    assert bond(evm) == 0


def test_a_key_without_a_bond_can_be_punished_when_it_has_one(evm: NetworkEvm) -> None:
    """Or a key could use its proofs up before there is anything to lose."""
    arguments = two(SEAL, OTHER_SEAL, key=OTHER, other=OTHER)
    for _ in range(2):
        evm.send(ACCUSER, COURT, "equivocation", *arguments)
        assert evm.events(COURT)[0][1]["taken"] == 0
    assert evm.balance(ACCUSER) == 10_000


@pytest.mark.parametrize("broken", range(2))
def test_one_bad_signature_of_two_is_no_proof(evm: NetworkEvm, broken: int) -> None:
    arguments = two(*receipts())
    place = 2 + 2 * broken
    s = arguments[place].s
    arguments[place] = replace(arguments[place], s=bytes([s[0] ^ 1]) + s[1:])
    assert evm.refused(ACCUSER, COURT, "equivocation", *arguments) == "BadSignature"
    assert bond(evm) == 200


def signed_as(text: bytes) -> tuple[bytes, Any]:
    return text, signed(CULPRIT, text)


BODY = encode(RECEIPT)
SEAL_BODY = encode(SEAL)
PROGRESS = Progress(ticket=bytes(16), count=1, output_hash=bytes(32))
NOT_STATEMENTS = {
    "another message": b"assay/1/Progress\0" + encode(PROGRESS),
    "another type": b"assay/1/Receipt\0" + SEAL_BODY,
    "a receipt as a seal": b"assay/1/Seal\0" + BODY,
    "no domain": BODY,
    "no body": b"assay/1/Receipt\0",
    "no map": b"assay/1/Receipt\0" + b"\x90" + BODY[1:],
    "cut in the ticket": b"assay/1/Receipt\0" + BODY[:21],
    "cut in the subject": b"assay/1/Seal\0" + SEAL_BODY[:37],
    "a ticket of another size": b"assay/1/Receipt\0" + BODY[:5] + b"\x11" + BODY[6:],
    "a subject of another size": b"assay/1/Seal\0" + SEAL_BODY[:5] + b"\x1f" + SEAL_BODY[6:],
    "a count of nine bytes": b"assay/1/Receipt\0\x8c\x00\x70\x01\xcf" + bytes(8) + BODY[3:],
    "a count cut short": b"assay/1/Receipt\0\x8c\x00\x70\x01\xce\x00\x00",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("text", NOT_STATEMENTS.values(), ids=NOT_STATEMENTS)
def test_what_is_no_statement_is_refused(evm: NetworkEvm, text: bytes) -> None:
    good = signed_as(b"assay/1/Receipt\0" + BODY)
    odd = signed_as(text)
    for pair in ((odd, good), (good, odd), (odd, odd)):
        arguments = [KEY, *pair[0], *pair[1]]
        assert evm.refused(ACCUSER, COURT, "equivocation", *arguments) == "NotStatements"


texts = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=40).map(lambda tail: b"assay/1/Receipt\0" + tail),
    st.binary(max_size=40).map(lambda tail: b"assay/1/Receipt\0\x8b\x00\x70" + tail),
    st.binary(max_size=40).map(lambda tail: b"assay/1/Receipt\0\x8b\x00\x70\x01" + tail),
    st.binary(max_size=40).map(lambda tail: b"assay/1/Seal\0\x83\x00\x74\x02" + tail),
)


@settings(max_examples=200, deadline=None)
@given(texts)
def test_any_bytes_are_refused_by_name(text: bytes) -> None:
    pair = signed_as(text)
    refused = ROOM.refused(ACCUSER, COURT, "equivocation", KEY, *pair, *pair)
    assert refused in ("NotStatements", "SameStatement")


def test_a_seal_s_and_a_receipt_s_first_bytes_are_as_the_contract_reads_them() -> None:
    assert encode(RECEIPT)[1:6] == bytes.fromhex("007002c410")
    assert encode(replace(RECEIPT, calibration=5))[1:5] == bytes.fromhex("00700105")
    assert encode(SEAL)[1:6] == bytes.fromhex("007402c420")
    assert isinstance(SEAL, Seal)
