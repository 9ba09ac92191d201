"""0x texts: what counts as one, and what only Python would take for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts.hex_texts import data_of, hexed, number_of


@given(st.binary(max_size=80))
def test_data_comes_back(raw: bytes) -> None:
    assert data_of(hexed(raw)) == data_of(hexed(raw), len(raw)) == raw
    assert data_of(hexed(raw), len(raw) + 1) is None


@pytest.mark.parametrize("raw", [None, 7, "", "0", "12", "0X12", "0x1", "0xzz", "0x12 34", "0x 12"])
def test_what_is_no_data(raw: object) -> None:
    assert data_of(raw) is None


def test_a_number_s_digits_may_be_odd() -> None:
    assert data_of("0x123", odd=True) == b"\x01\x23"
    assert data_of("0x123") is None


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_a_number_comes_back(number: int) -> None:
    assert number_of(hex(number), 16) == number


@pytest.mark.parametrize("raw", [None, 7, "", "0x", "12", "0x1_0", "0x+1", "0x-1", "0x 1", "0x１"])
def test_what_is_no_number(raw: object) -> None:
    assert number_of(raw, 16) is None


def test_a_number_of_too_many_digits_is_none() -> None:
    assert number_of("0x" + "0" * 15 + "1", 16) == 1
    assert number_of("0x" + "0" * 16 + "1", 16) is None
