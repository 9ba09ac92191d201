"""Looks end in time and within their bounds, whoever answers; what goes wrong is a code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest
import trio
from trio.testing import MockClock

from assay.top.reading import (
    BODY_BYTES_MAX,
    NodePlace,
    look_at_network,
    look_at_node,
    new_web,
    node_place,
    page_root,
    passwords,
)
from assay_protocol.errors import AssayError
from sdk.top.top_cases import pages, status

DOOR = NodePlace("door", url="http://door")


def web_of(bodies: dict[str, bytes], statuses: dict[str, int] | None = None) -> httpx.AsyncClient:
    """Answers by path; what is not there is 404."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        code = (statuses or {}).get(path, 200 if path in bodies else 404)
        return httpx.Response(code, stream=httpx.ByteStream(bodies.get(path, b"")))

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


async def test_a_node_is_read_by_its_pages() -> None:
    async with web_of(pages(), {"/readyz": 503}) as web:
        look = await look_at_node(web, DOOR)
    assert (look.fault, look.reasons, look.from_file) == ("", ("busy",), False)
    assert look.status == status()
    assert "assay_generation_tokens_total 100" in look.metrics


async def test_a_password_goes_to_the_pages_it_is_of_and_to_no_other() -> None:
    told: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        told.append((request.url.host, request.headers.get("authorization", "")))
        return httpx.Response(404, stream=httpx.ByteStream(b""))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as web:
        await look_at_node(web, node_place("one:9101", "a-password-of-one"))
        await look_at_node(web, node_place("two:9101"))
        await look_at_network(web, "http://door", "a-password-of-the-door")
    assert set(told) == {
        ("one", "Bearer a-password-of-one"),
        ("two", ""),
        ("door", "Bearer a-password-of-the-door"),
    }


def test_a_password_is_read_from_a_file_that_is_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("sixteen-letters!\n")
    with pytest.raises(AssayError) as seen_by_others:
        passwords([str(file)], ["one"])
    assert seen_by_others.value.code == "key_permissions"
    file.chmod(0o600)
    assert passwords([str(file)], ["one"]) == {"one": "sixteen-letters!"}
    assert passwords([f"two={file}"], ["one", "two"]) == {"two": "sixteen-letters!"}
    for wrong, names in ((f"{file}", ["one", "two"]), (f"three={file}", ["one"])):
        with pytest.raises(AssayError, match="WHERE"):
            passwords([wrong], names)
    file.write_bytes(b"\xff" * 20)
    with pytest.raises(AssayError, match="no password"):
        passwords([str(file)], ["one"])


async def test_an_older_node_has_no_status_page() -> None:
    bodies = pages()
    del bodies["/status"]
    async with web_of(bodies) as web:
        look = await look_at_node(web, DOOR)
    assert (look.fault, look.status) == ("", None)


@pytest.mark.parametrize(
    ("path", "body", "code", "fault"),
    [
        ("/metrics", b"", 500, "http_500"),
        ("/metrics", bytes(BODY_BYTES_MAX + 1), 200, "oversized"),
        ("/status", b"{", 200, "malformed"),
        ("/status", b"[" * 100_000, 200, "malformed"),
        ("/status", b"{}", 302, "http_302"),
        ("/readyz", b"\xff", 200, "malformed"),
    ],
)
def test_what_is_no_node_is_told_by_a_code(path: str, body: bytes, code: int, fault: str) -> None:
    async def seen() -> str:
        async with web_of(pages() | {path: body}, {path: code}) as web:
            return (await look_at_node(web, DOOR)).fault

    assert anyio.run(seen) == fault, "on asyncio, as the screen runs"


async def test_nobody_there_is_told_by_a_code() -> None:
    async with new_web() as web:
        look = await look_at_node(web, NodePlace("x", url="http://127.0.0.1:1"))
        assert look.fault == "unreachable"
        assert (await look_at_network(web, "http://127.0.0.1:1")).fault == "unreachable"


async def test_a_coordinator_is_read_by_its_api() -> None:
    async with web_of(pages()) as web:
        look = await look_at_network(web, "http://door")
    assert (look.fault, look.network) == ("", json.loads(pages()["/api/network"]))
    async with web_of({}) as web:
        assert (await look_at_network(web, "http://door")).fault == "http_404"


async def test_who_answers_one_byte_at_a_time_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await trio.sleep(1)
                yield b"x"

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Trickle())

    began = trio.current_time()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as web:
        assert (await look_at_node(web, DOOR)).fault == "timeout"
        assert (await look_at_network(web, "http://door")).fault == "timeout"
    assert trio.current_time() - began == pytest.approx(6)


async def test_a_folder_is_read_and_the_pages_it_names(tmp_path: Path) -> None:
    place = node_place(str(tmp_path))
    async with web_of(pages()) as web:
        assert (await look_at_node(web, place)).fault == "no_status"
        (tmp_path / "status.json").write_text(json.dumps(status()))
        alone = await look_at_node(web, place)
        (tmp_path / "status.json").write_text(json.dumps(status(metrics="http://door")))
        both = await look_at_node(web, place)
        (tmp_path / "status.json").write_text(json.dumps(status(metrics="file:///etc/passwd")))
        other = await look_at_node(web, place)
        (tmp_path / "status.json").write_text('{"half')
        assert (await look_at_node(web, place)).fault == "malformed"
    assert (alone.from_file, alone.metrics) == (True, "")
    assert not both.from_file
    assert both.metrics
    assert (other.from_file, other.metrics) == (True, "")


async def test_a_folder_whose_pages_do_not_answer_is_read_alone(
    tmp_path: Path,
) -> None:
    told = status(metrics="http://door")
    (tmp_path / "status.json").write_text(json.dumps(told))
    async with web_of({}) as web:
        look = await look_at_node(web, node_place(str(tmp_path)))
    assert (look.from_file, look.status) == (True, told)


def test_places_are_urls_addresses_or_folders(tmp_path: Path) -> None:
    assert node_place("127.0.0.1:9101").url == "http://127.0.0.1:9101"
    assert node_place("https://a.example/node/").url == "https://a.example/node"
    assert node_place(str(tmp_path)).folder == tmp_path
    assert node_place("./nowhere").folder == Path("nowhere")
    for text in ("http://user@host", "http://h?x=1", "ftp://h", "h:0", "", "h:99999"):
        with pytest.raises(AssayError, match="config_invalid"):
            page_root(text)
