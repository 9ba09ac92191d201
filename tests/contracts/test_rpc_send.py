"""Anybody may send to Assay's contracts, and nobody can send much else, or too much."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay_contracts.artefact import load
from assay_contracts.credit import ledger_abi
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.block_rules import check_transaction
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import (
    BASE_FEE,
    CONTRACTS_MAX,
    GAS_LIMIT,
    TRANSACTION_GAS_MAX,
    address_of,
    poster_key,
)
from assay_contracts.rpc.methods import CALL_GAS_MAX
from assay_contracts.rpc.send import ALL_BURST, SENDER_BURST, SENDERS_MAX, Bucket
from assay_contracts.rpc.server import Answers
from assay_protocol.errors import AssayError

STRANGER = b"\x77" * 32
NOWHERE = b"\x05" * 20
HEAD = ledger_abi.head_call()


class Watch:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def answers(chain: LocalChain, ledger: CreditLedgerClient, watch: Watch) -> Answers:
    return Answers(chain, watch)


def send(answers: Answers, raw: bytes) -> Any:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction"}
    answer = answers.all(asked | {"params": [f"0x{raw.hex()}"]})
    return answer.get("result") or answer["error"]


def signed(chain: LocalChain, to: bytes | None, data: bytes, nonce: int, **more: Any) -> bytes:
    return chain.sign(more.pop("key", STRANGER), to, data, nonce=nonce, gas=100_000, **more)[0]


def legacy(chain: LocalChain, to: bytes, **fields: Any) -> bytes:
    plain = {"to": to, "value": 0, "gas": 100_000, "gasPrice": 0, "nonce": 0, "data": HEAD}
    wanted = plain | {"chainId": chain.chain_id} | fields
    if wanted["chainId"] is None:  # valid on any chain
        del wanted["chainId"]
    return bytes(Account.sign_transaction(wanted, STRANGER).raw_transaction)


def test_a_stranger_without_a_coin_sends_to_a_contract(
    chain: LocalChain, ledger: CreditLedgerClient, answers: Answers
) -> None:
    raw = signed(chain, ledger.address, HEAD, 0)
    name = send(answers, raw)
    assert chain.head_block().transactions == (bytes.fromhex(name[2:]),)
    assert send(answers, raw) == name, "the same again is the same, not an error"
    assert chain.head_block().number == CONTRACTS_MAX + 1
    assert send(answers, legacy(chain, ledger.address, nonce=1)).startswith("0x")
    assert chain.nonce(address_of(STRANGER)) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"to": NOWHERE}, "only transactions to Assay's contracts"),
        ({"value": 1}, "no coin"),
        ({"gas": 3_000_001}, "gas limit above"),
        ({"nonce": 7}, "nonce too high: next is 0"),
        ({"chainId": 1}, "signed for another chain"),
        ({"chainId": None}, "signed for another chain"),
        ({"gasPrice": 10**9}, "transaction"),
        ({"data": bytes(65 * 1024), "gas": 3_000_000}, "oversized"),
    ],
)
def test_what_is_not_taken(
    chain: LocalChain,
    ledger: CreditLedgerClient,
    answers: Answers,
    fields: dict[str, Any],
    words: str,
) -> None:
    raw = legacy(chain, fields.pop("to", ledger.address), **fields)
    fault = send(answers, raw)
    assert fault["code"] == -32000
    assert words in fault["message"]
    assert chain.head_block().number == CONTRACTS_MAX


def test_a_contract_cannot_be_made(chain: LocalChain, answers: Answers) -> None:
    fault = send(answers, signed(chain, None, b"\x00", 0))
    assert "only transactions to Assay's contracts" in fault["message"]


def test_a_refused_call_leaves_no_block_and_says_why(
    chain: LocalChain, ledger: CreditLedgerClient, answers: Answers
) -> None:
    header = Header(b"\x07" * 32, 50, 9, 3, bytes(32), bytes(32))
    raw = signed(chain, ledger.address, ledger_abi.post_call(1, header), 0)
    fault = send(answers, raw)
    assert (fault["code"], fault["message"]) == (3, "execution reverted")
    error = load("CreditLedger").error_name(bytes.fromhex(fault["data"][2:]))
    assert error == "NotPoster"
    assert chain.head_block().number == CONTRACTS_MAX


def test_a_sender_and_all_together_are_bounded(
    chain: LocalChain, ledger: CreditLedgerClient, answers: Answers, watch: Watch
) -> None:
    for nonce in range(SENDER_BURST):
        assert isinstance(send(answers, signed(chain, ledger.address, HEAD, nonce)), str)
    more = signed(chain, ledger.address, HEAD, SENDER_BURST)
    fault = send(answers, more)
    assert fault["code"] == -32005
    assert 0 < fault["data"]["retry_after_ms"] <= 5_001
    other = signed(chain, ledger.address, HEAD, 0, key=b"\x66" * 32)
    assert isinstance(send(answers, other), str), "another sender has a bucket of its own"
    watch.now += fault["data"]["retry_after_ms"] / 1000
    assert isinstance(send(answers, more), str)


def test_refused_calls_count_too(
    chain: LocalChain, ledger: CreditLedgerClient, answers: Answers
) -> None:
    header = Header(b"\x07" * 32, 50, 9, 3, bytes(32), bytes(32))
    call = ledger_abi.post_call(1, header)
    codes = [
        send(answers, signed(chain, ledger.address, call, 0))["code"]
        for _ in range(SENDER_BURST + 1)
    ]
    assert codes == [3] * SENDER_BURST + [-32005]


@given(
    moves=st.lists(st.tuples(st.floats(0, 50), st.integers(1, 20)), max_size=40),
    burst=st.integers(1, 20),
    rate=st.floats(0.05, 5),
)
def test_a_bucket_gives_no_more_than_its_rate(
    moves: list[tuple[float, int]], burst: int, rate: float
) -> None:
    now, taken = 1_000.0, 0
    bucket = Bucket(burst, rate, now)
    for pause, tries in moves:
        now += pause
        for _ in range(tries):
            if bucket.wait(now) == 0:
                bucket.take()
                taken += 1
        assert taken <= burst + (now - 1_000.0) * rate + 1e-6
    wait = bucket.wait(now)
    assert bucket.wait(now + wait + 1e-6) == 0


def test_the_map_of_senders_is_bounded(answers: Answers, watch: Watch) -> None:
    sends: Any = answers._methods["eth_sendRawTransaction"]
    for number in range(SENDERS_MAX + 10):
        watch.now += 1
        sends.__self__._pay(number.to_bytes(20))
    assert len(sends.__self__._senders) == SENDERS_MAX
    assert ALL_BURST > SENDER_BURST


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_refused_by_name(answers: Answers, raw: bytes) -> None:
    assert send(answers, raw)["code"] == -32000


def test_the_base_fee_stays_zero_whatever_a_transaction_uses(chain: LocalChain) -> None:
    """The most gas one may use is below half of a block's, so EIP-1559 never raises the fee."""
    assert TRANSACTION_GAS_MAX < GAS_LIMIT // 2
    greedy = bytes.fromhex("60006221dc0052")  # a store far out: 9.6 million for the memory alone
    key = poster_key(b"\x01" * 32)
    chain.send(key, None, greedy, gas=TRANSACTION_GAS_MAX)
    head = chain.head_block()
    assert head.gas_used > 9_500_000
    chain.send(key, NOWHERE, b"")
    assert chain.head_block().base_fee == BASE_FEE == 0
    assert chain.head_block().gas_limit == GAS_LIMIT
    with pytest.raises(AssayError, match="gas_too_low"):
        chain.send(key, NOWHERE, b"", gas=TRANSACTION_GAS_MAX + 1)


def test_blobs_and_delegations_are_not_mined(chain: LocalChain) -> None:
    class Delegating:
        type_id, gas = 4, 21_000

    with pytest.raises(AssayError, match="type 4"):
        check_transaction(Delegating(), b"", 1)


def test_a_call_that_would_hold_the_chain_ends(
    chain: LocalChain, answers: Answers, ledger: CreditLedgerClient
) -> None:
    """A contract that never ends takes the calls' gas and no more."""
    forever = bytes.fromhex("5b600056")
    creation = bytes.fromhex("63") + forever + bytes.fromhex("60e01b60005260046000f3")
    address = chain.send(poster_key(b"\x01" * 32), None, creation).contract
    assert address is not None
    assert chain.code(address) == forever
    asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_call"}
    call = {"to": f"0x{address.hex()}", "gas": hex(10**9)}
    assert answers.all(asked | {"params": [call]})["error"]["code"] == 3
    assert CALL_GAS_MAX < TRANSACTION_GAS_MAX


def test_a_long_batch_ends(chain: LocalChain, answers: Answers, watch: Watch) -> None:
    class Slow(Watch):
        def __call__(self) -> float:
            self.now += 0.5
            return self.now

    slow = Answers(chain, Slow())
    batch = [{"jsonrpc": "2.0", "id": n, "method": "eth_chainId"} for n in range(9)]
    found = slow.all(batch)
    assert "result" in found[0]
    assert found[-1]["error"]["code"] == -32005
