import contextlib
from dataclasses import dataclass
from typing import Any

import pytest
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts import calls
from assay_contracts.artefact import load
from assay_contracts.credit import ledger_abi
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.records import ContractRefused, Log
from assay_protocol.credit_tree import CreditLeaf, ProofItem, encode_proof
from assay_protocol.errors import AssayError

LEDGER = "CreditLedger"
HEADER = Header(bytes([1]) * 32, 2, 3, 4, bytes([5]) * 32, bytes([6]) * 32)


def test_a_call_is_what_the_hand_written_encoding_says() -> None:
    assert calls.encode(LEDGER, "post", 7, HEADER) == ledger_abi.post_call(7, HEADER)
    leaf = CreditLeaf(bytes([9]) * 32, 1, 2**100, 3, bytes([8]) * 32)
    proof = (ProofItem(bytes([4]) * 32, 5),)
    tail = encode_proof(proof)
    by_hand = ledger_abi.verify_leaf_call(7, leaf, 1, proof)
    assert calls.encode(LEDGER, "verifyLeaf", 7, leaf, 1, tail) == by_hand
    fields = (leaf.account, leaf.role, leaf.cumulative, leaf.epoch_credit, leaf.receipts_root)
    assert calls.encode(LEDGER, "verifyLeaf", 7, fields, 1, tail) == by_hand


def test_a_function_is_found_by_its_signature_too() -> None:
    assert calls.encode(LEDGER, "epochs(uint32)", 5) == calls.encode(LEDGER, "epochs", 5)


@dataclass(frozen=True)
class Bare:
    root: bytes


@pytest.mark.parametrize(
    "arguments",
    [(), (1,), (1, HEADER, 2), (2**32, HEADER), (-1, HEADER), ("1", HEADER), (1, ()), (1, None),
     (1, Bare(bytes(32))), (1, (bytes(31), 2, 3, 4, bytes(32), bytes(32))),
     (1, (bytes(33), 2, 3, 4, bytes(32), bytes(32))), (1, ("00" * 32, 2, 3, 4, bytes(32), b""))],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_malformed(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(AssayError) as caught:
        calls.encode(LEDGER, "post", *arguments)
    assert caught.value.code == "malformed"


def test_a_function_nobody_has_is_malformed() -> None:
    with pytest.raises(AssayError, match="0 functions called mint"):
        calls.encode(LEDGER, "mint")


def test_addresses_are_bytes_both_ways() -> None:
    assert calls.decode(LEDGER, "poster", bytes(12) + bytes([7]) * 20) == (bytes([7]) * 20,)


@given(st.binary(max_size=200))
def test_any_answer_is_decoded_or_malformed(data: bytes) -> None:
    for function in ("poster", "head", "verifyLeaf"):
        if len(data) >= 32:  # one word, and what follows it is not asked for
            with contextlib.suppress(AssayError):
                assert isinstance(calls.decode(LEDGER, function, data)[0], bytes | int)
            continue
        with pytest.raises(AssayError) as caught:
            calls.decode(LEDGER, function, data)
        assert caught.value.code == "malformed"


def test_an_answer_without_end_is_malformed() -> None:
    with pytest.raises(AssayError, match="1 MiB"):
        calls.decode(LEDGER, "poster", bytes(calls.DATA_BYTES_MAX + 32))


def test_an_event_is_read_by_name() -> None:
    topic = calls.topic(LEDGER, "EpochPosted")
    assert topic == keccak(text="EpochPosted(uint32,bytes32,uint128,uint64,uint32,bytes32,bytes32)")
    data = ledger_abi.post_call(7, HEADER)[4 + 32 :]
    name, values = calls.events(LEDGER, Log(bytes(20), (topic, (7).to_bytes(32)), data))
    assert name == "EpochPosted"
    assert list(values) == ["epoch", "root", "totalCum", "jobs", "leaves", "dataHash", "policy"]
    assert (values["epoch"], values["root"], values["jobs"]) == (7, HEADER.root, 3)


@given(
    st.lists(st.binary(min_size=32, max_size=32), max_size=4).map(tuple),
    st.binary(max_size=64),
    st.booleans(),
)
def test_any_log_is_an_event_or_malformed(
    topics: tuple[bytes, ...], data: bytes, known: bool
) -> None:
    first = (calls.topic(LEDGER, "EpochPosted"),) if known else ()
    with pytest.raises(AssayError) as caught:
        calls.events(LEDGER, Log(bytes(20), first + topics, data))
    assert caught.value.code == "malformed"


def test_a_refusal_is_named_with_its_arguments() -> None:
    (selector,) = (code for code, name in load(LEDGER).errors.items() if name == "EpochOutOfOrder")
    output = selector + (3).to_bytes(32) + (5).to_bytes(32)
    assert str(calls.refusal(output)) == "EpochOutOfOrder(expected=3, given=5)"
    told = calls.explained(ContractRefused(output, "?"))
    assert "EpochOutOfOrder(expected=3, given=5)" in str(told)
    assert (told.code, told.output) == ("contract_refused", output)
    text = bytes.fromhex("08c379a0") + bytes(31) + b" " + (2).to_bytes(32) + b"no" + bytes(30)
    assert str(calls.refusal(text)) == "Error(message=no)"
    assert str(calls.refusal(bytes.fromhex("4e487b71") + (17).to_bytes(32))) == "Panic(code=17)"


@given(st.binary(max_size=100), st.sampled_from([b"", *load(LEDGER).errors]))
def test_any_revert_has_words(output: bytes, selector: bytes) -> None:
    told = calls.explained(ContractRefused(selector + output, "?"))
    assert told.output == selector + output
    assert "the contract refused" in str(told)
