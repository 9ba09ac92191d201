"""Addresses that owners write, and the sockets made of them."""

from __future__ import annotations

from contextlib import closing

import pytest

from assay_network.http_listener import listener_url, listening_socket, parse_address
from assay_protocol.errors import AssayError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:9100", "127.0.0.1", 9100), ("[::1]:0", "::1", 0), ("localhost:1", "localhost", 1)],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert parse_address("metrics", text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "9100", ":9100", "host:", "host:port", "host:-1", "host:65536", "host:٣"]
)
def test_what_is_no_address_is_refused_by_the_setting_s_name(text: str) -> None:
    with pytest.raises(AssayError, match="metrics must be HOST:PORT") as caught:
        parse_address("metrics", text)
    assert caught.value.code == "config_invalid"


def test_a_port_that_is_taken_is_named() -> None:
    with closing(listening_socket("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        assert listener_url(first) == f"http://127.0.0.1:{port}"
        with pytest.raises(AssayError, match=rf"127\.0\.0\.1:{port}.*EADDRINUSE") as caught:
            listening_socket("127.0.0.1", port)
    assert caught.value.code == "port_in_use"
