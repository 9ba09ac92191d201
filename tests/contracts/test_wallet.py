"""Wallets follow from seeds, and sign what everybody else reads as the same transaction."""

from __future__ import annotations

import pytest
from eth_account import Account
from eth_account.typed_transactions import TypedTransaction
from hexbytes import HexBytes
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts.adapters.backend import Fees
from assay_contracts.adapters.offers import Call, FeeBounds, Offer
from assay_contracts.adapters.wallet import (
    Wallet,
    read_address,
    show_address,
    transaction_hash,
    wallet_key,
)
from assay_contracts.local.genesis import poster_key
from assay_protocol.errors import AssayError

SEED = bytes(range(32))


def test_a_seed_has_one_wallet_and_another_poster() -> None:
    assert wallet_key(SEED) == wallet_key(SEED) != poster_key(SEED)
    assert wallet_key(SEED) != wallet_key(bytes(32))
    assert Wallet.of_seed(SEED).address == bytes.fromhex(
        Account.from_key(wallet_key(SEED)).address[2:]
    )


@given(
    st.integers(1, 2**40),
    st.integers(0, 2**40),
    st.none() | st.binary(min_size=20, max_size=20),
    st.binary(max_size=300),
    st.integers(21_000, 2**30),
)
def test_a_transaction_is_the_one_eth_account_signs(
    chain_id: int, nonce: int, to: bytes | None, data: bytes, gas: int
) -> None:
    wallet = Wallet.of_seed(SEED)
    raw = wallet.sign(chain_id, nonce, Call(to, data), Offer(gas, 77, 3))
    theirs = Account.from_key(wallet_key(SEED)).sign_transaction(
        {
            "type": 2,
            "chainId": chain_id,
            "nonce": nonce,
            "to": b"" if to is None else show_address(to),
            "value": 0,
            "data": data,
            "gas": gas,
            "maxFeePerGas": 77,
            "maxPriorityFeePerGas": 3,
        }
    )
    assert raw == bytes(theirs.raw_transaction)
    assert transaction_hash(raw) == bytes(theirs.hash)
    assert TypedTransaction.from_bytes(HexBytes(raw)).as_dict()["nonce"] == nonce


@given(st.binary(min_size=20, max_size=20))
def test_addresses_are_read_as_written(address: bytes) -> None:
    shown = show_address(address)
    assert read_address(shown) == read_address(shown.lower()) == address
    assert read_address(shown[2:].upper()) == address


@pytest.mark.parametrize("text", ["", "0x", "0x12", "zz" * 20, "0x" + "0 " * 20, "1" * 42])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AssayError) as caught:
        read_address(text)
    assert caught.value.code == "config_invalid"


def test_a_typing_error_is_seen_by_the_checksum() -> None:
    shown = show_address(Wallet.of_seed(SEED).address)
    place = next(i for i in range(2, 42) if shown[i].isalpha())
    with pytest.raises(AssayError):
        read_address(shown[:place] + shown[place].swapcase() + shown[place + 1 :])


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**41))
def test_offers_rise_by_an_eighth_and_stop_at_the_bound(
    base: int, tip: int, base_now: int, most: int
) -> None:
    bounds = FeeBounds(most)
    offer = bounds.first(Fees(base, tip))
    if offer is None:
        assert base + tip > most
        return
    for _ in range(400):
        assert max(offer) <= most
        higher = bounds.raised(*offer, Fees(base_now, tip))
        if higher is None:
            assert offer[0] + offer[0] // 8 + 1 > most
            return
        assert higher[0] > offer[0] * 9 // 8
        offer = higher
    raise AssertionError("offers rise for ever")
