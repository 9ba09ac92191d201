"""URLs in settings: taken, or refused by name; never an exception of the library's."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.routing.file import read_routes
from assay_contracts.credit.http_post import Poster
from assay_network.tracing import check_endpoint
from assay_protocol.errors import AssayError
from assay_protocol.urls import http_url

BROKEN = [
    *("http://[x", "http://h:port", "http://h:99999", "http://h:0", "ftp://h", "http://", ""),
    *("http://h h", "http://a..b", f"http://{'a' * 64}", "http://h/ x", "http://h\x7f"),
]


@pytest.mark.parametrize("text", ["http://h", "https://h:8443/v1", "http://[::1]:80", "HTTP://H"])
def test_urls(text: str) -> None:
    parts = http_url(text)
    assert parts is not None
    assert parts.hostname in ("h", "::1")


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_url_is_refused_by_name_wherever_it_stands(text: str) -> None:
    assert http_url(text) is None
    with pytest.raises(AssayError) as refused:
        check_endpoint("otlp", text)
    assert refused.value.code == "config_invalid"
    with pytest.raises(AssayError) as refused:
        Poster(text)
    assert refused.value.code == "config_invalid"


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_of_routes_with_one_is_refused(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("routes") / "routes.toml"
    file.write_text(f"[upstream.u]\nurl = {json.dumps(text)}\n")
    with pytest.raises(AssayError) as refused:
        read_routes(file)
    assert refused.value.code == "config_invalid"


@given(st.text(max_size=40) | st.text(alphabet="htps:/[]@.#?0123456789x", max_size=30))
def test_any_text_is_a_url_or_none(text: str) -> None:
    parts = http_url(text)
    assert parts is None or parts.hostname
    dialable = parts is not None and (parts.path + parts.query).isascii()
    with nullcontext() if dialable else pytest.raises(AssayError, match="config_invalid"):
        Poster(text).close()
