"""Addresses name keys, and nothing else passes for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_network.identity import peer_key, peer_text, split_address
from assay_protocol.errors import ProtocolError


@given(st.binary(min_size=32, max_size=32))
def test_peer_text_round_trip(key: bytes) -> None:
    assert peer_key(peer_text(key)) == key
    assert split_address(f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(key)}") == key


@given(st.text(max_size=80))
def test_any_text_is_a_key_or_a_protocol_error(text: str) -> None:
    try:
        key = peer_key(text)
    except ProtocolError:
        return
    assert peer_text(key) == text


@pytest.mark.parametrize(
    "address", ["", "/p2p/", "/ip4/1.2.3.4/tcp/1", "12D3Koo", "/ip4/1.2.3.4/tcp/1/p2p/QmYyQSo1c1"]
)
def test_addresses_without_a_key_are_refused(address: str) -> None:
    with pytest.raises(ProtocolError):
        split_address(address)
