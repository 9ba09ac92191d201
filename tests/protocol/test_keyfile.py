from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.errors import AssayError
from assay_protocol.keyfile import format_key, parse_key


@given(st.binary(min_size=32, max_size=32))
def test_a_key_comes_back(seed: bytes) -> None:
    content = format_key(seed)
    assert content.startswith(b"assay-key-1 ")
    assert content.endswith(b"\n")
    assert parse_key(content) == seed


@given(st.binary(max_size=400))
def test_any_other_content_is_refused_in_one_way(content: bytes) -> None:
    with pytest.raises(AssayError) as refused:
        parse_key(content)
    assert refused.value.code == "key_invalid"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"assay-key-1",
        b"assay-key-2 " + format_key(bytes(32)).split()[1],
        b"assay-key-1 AAAA",
        b"assay-key-1 " + b"A" * 43 + b"*",
        format_key(bytes(32)) * 2,
        format_key(bytes(32)) + b" " * 256,
    ],
)
def test_damage_is_refused_without_quoting_the_key(content: bytes) -> None:
    with pytest.raises(AssayError) as refused:
        parse_key(content)
    assert refused.value.code == "key_invalid"
    assert "AAAA" not in str(refused.value)
