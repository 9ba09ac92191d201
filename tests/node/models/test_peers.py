"""Model files from other nodes, on the in-memory network: liars, stalls, short and long blocks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from nacl.signing import SigningKey

from assay_network.frames import Frames
from assay_network.host import Host, open_host
from assay_network.memory import MemoryNetwork
from assay_node.models.peers import BlockPeer, PeerFetch
from assay_node.models.sharing import (
    PEER_STREAMS_MAX,
    BlockServer,
    Shared,
    hash_blocks,
    share,
)
from assay_protocol.blocks import (
    BLOCK,
    GRANTED,
    LIST,
    BlockRequest,
    block_root,
    block_size,
    check_granted,
    decode_request,
    encode_request,
    pieces,
)
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError, RemoteError
from assay_protocol.limits import BLOCK_BYTES
from assay_protocol.links import BLOCKS
from card_cases import small_card

CONTENT = random.Random(1).randbytes(5 * BLOCK_BYTES + 4321)
DIGEST = hashlib.sha256(CONTENT).digest()
HASHES = b"".join(
    hashlib.sha256(CONTENT[begin : begin + BLOCK_BYTES]).digest()
    for begin in range(0, len(CONTENT), BLOCK_BYTES)
)
CARD = small_card(
    digest=DIGEST, size_bytes=len(CONTENT), block_root=block_root(len(CONTENT), HASHES)
)
UNROOTED = replace(CARD, block_root=None)
FAST = 1e9
Serve = Callable[[bytes, Frames], Awaitable[None]]


@pytest.fixture(autouse=True)
def disk_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time would leap while a thread works."""

    async def at_once(call: Callable[..., Any], *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return call(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)


@pytest.fixture
def source(tmp_path: Path) -> Shared:
    path = tmp_path / "source.gguf"
    path.write_bytes(CONTENT)
    return share(CARD, path)


@asynccontextmanager
async def network(*serve: Serve) -> AsyncIterator[tuple[Host, list[BlockPeer]]]:
    """A host that asks, and peers that serve as told."""
    wires = MemoryNetwork(latency=lambda a, b: 0.01)
    hosts = []
    async with contextlib.AsyncExitStack() as stack:
        for number in range(len(serve) + 1):
            seed = bytes([number + 1]) * 32
            key = bytes(SigningKey(seed).verify_key)
            opened = open_host(seed, [wires.address()], transports=[wires.transport(key)])
            hosts.append(await stack.enter_async_context(opened))
        for host, handler in zip(hosts[1:], serve, strict=True):
            host.serve(BLOCKS, handler)
        yield hosts[0], [BlockPeer(host.public_key, host.addresses) for host in hosts[1:]]


def answering(spoil: Callable[[BlockRequest, bytes], list[bytes] | None]) -> Serve:
    """A peer whose answers to blocks are what `spoil` makes of the right bytes; None: silence."""

    async def handle(peer: bytes, frames: Frames) -> None:
        while True:
            request = decode_request(await frames.receive(1e6))
            begin = request.index * BLOCK_BYTES
            data = HASHES
            if request.kind == BLOCK:
                data = CONTENT[begin : begin + block_size(len(CONTENT), request.index)]
            spoilt = spoil(request, data)
            if spoilt is None:
                await trio.sleep_forever()
                return
            await frames.send_many([GRANTED, *spoilt])

    return handle


def blocks_only(change: Callable[[bytes], list[bytes] | None]) -> Serve:
    return answering(
        lambda request, data: list(pieces(data)) if request.kind == LIST else change(data)
    )


async def vanish(peer: bytes, frames: Frames) -> None:
    await frames.receive(10.0)
    await frames.send(GRANTED)
    await frames.abort()


async def fetch(host: Host, peers: list[BlockPeer], folder: Path, card: ModelCard) -> PeerFetch:
    one = PeerFetch(host, card, folder)
    path = await one.run(peers)
    assert path.read_bytes() == CONTENT
    assert os.listdir(folder) == ["tiny-1.gguf"]
    return one


async def test_several_nodes_give_one_file(
    source: Shared, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    asked: list[tuple[int, int]] = []

    def counting(number: int) -> Serve:
        def note(request: BlockRequest, data: bytes) -> list[bytes]:
            asked.append((number, request.index))
            return list(pieces(data))

        return answering(note)

    async with network(counting(0), counting(1), BlockServer([source], FAST).handle) as (
        host,
        peers,
    ):
        one = await fetch(host, peers, tmp_path / "to", CARD)
    assert one.dropped == {}
    assert {number for number, _ in asked} == {0, 1}
    blocks = [index for _, index in asked[1:]]  # the first is the list
    assert len(blocks) == len(set(blocks)), "no block is asked for twice"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (blocks_only(lambda data: list(pieces(bytes(len(data))))), "proof_invalid"),
        (blocks_only(lambda data: None), "timeout"),
        (blocks_only(lambda data: [data[:100]]), "malformed"),
        (blocks_only(lambda data: [data[:70_000], data[70_000:]]), "malformed"),
        (answering(lambda request, data: list(pieces(data[:-32]))), "malformed"),
        (answering(lambda request, data: list(pieces(bytes(len(data))))), "proof_invalid"),
        (vanish, "peer_gone"),
    ],
)
async def test_a_bad_peer_is_dropped_and_the_file_comes_all_the_same(
    source: Shared,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    bad: Serve,
    code: str,
) -> None:
    async with network(bad, BlockServer([source], FAST).handle) as (host, peers):
        one = await fetch(host, peers, tmp_path / "to", CARD)
    assert one.dropped == {peers[0].key: code}


async def test_a_cut_fetch_goes_on_and_believes_nothing_on_disk(
    source: Shared, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    left = [3]

    def three(request: BlockRequest, data: bytes) -> list[bytes] | None:
        left[0] -= request.kind == BLOCK
        return list(pieces(data)) if left[0] >= 0 else None

    folder, asked = tmp_path / "to", []
    async with network(answering(three)) as (host, peers):
        one = PeerFetch(host, CARD, folder)
        with pytest.raises(AssayError) as cut:
            await one.run(peers)
        assert cut.value.code == "model_missing"
    (part,) = folder.glob(".*.blocks")
    with part.open("r+b") as file:
        file.write(b"rotten")  # block 0

    def count(request: BlockRequest, data: bytes) -> list[bytes]:
        asked.append((request.kind, request.index))
        return list(pieces(data))

    async with network(answering(count)) as (host, peers):
        await fetch(host, peers, folder, CARD)
    assert asked == [(BLOCK, 0), (BLOCK, 3), (BLOCK, 4), (BLOCK, 5)]


async def test_without_a_root_a_false_list_is_blamed_on_its_giver(
    source: Shared, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    false = bytes(len(CONTENT))
    hashes = b"".join(
        hashlib.sha256(false[begin : begin + BLOCK_BYTES]).digest()
        for begin in range(0, len(false), BLOCK_BYTES)
    )

    def lie(request: BlockRequest, data: bytes) -> list[bytes]:
        return list(pieces(hashes if request.kind == LIST else bytes(len(data))))

    async with network(answering(lie)) as (host, peers):
        with pytest.raises(AssayError) as refused:
            await PeerFetch(host, UNROOTED, tmp_path / "to").run(peers)
        assert refused.value.code == "model_missing"
        assert os.listdir(tmp_path / "to") == []
    async with network(BlockServer([source], FAST).handle) as (host, peers):
        await fetch(host, peers, tmp_path / "to", UNROOTED)


def test_only_what_the_licence_allows_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(CONTENT)
    assert hash_blocks(path) == HASHES
    for card, code in (
        (replace(CARD, license="llama3"), "forbidden"),
        (replace(CARD, license=""), "forbidden"),
        (replace(CARD, block_root=bytes(32)), "model_corrupt"),
        (replace(CARD, size_bytes=5), "model_corrupt"),
    ):
        with pytest.raises(AssayError) as refused:
            share(card, path)
        assert refused.value.code == code


async def test_a_paused_owner_gives_nothing_out(source: Shared) -> None:
    away = [True]
    server = BlockServer([source], FAST, lambda: away[0])
    request = encode_request(BlockRequest(BLOCK, DIGEST, 0))
    async with network(server.handle) as (host, peers):
        one = peers[0]
        async with host.open(one.key, BLOCKS, request, addresses=one.addresses) as frames:
            with pytest.raises(RemoteError) as refused:
                check_granted(await frames.receive(10.0))
            assert refused.value.code == "busy"
            away[0] = False
            await frames.send(request)
            check_granted(await frames.receive(10.0))


async def test_the_server_refuses_and_keeps_its_rate(
    source: Shared, autojump_clock: trio.testing.MockClock
) -> None:
    server = BlockServer([source], 2 * BLOCK_BYTES)
    async with network(server.handle) as (host, peers):
        one = peers[0]

        async def ask(digest: bytes, index: int) -> bytes:
            request = encode_request(BlockRequest(BLOCK, digest, index))
            opened = host.open(one.key, BLOCKS, request, addresses=one.addresses)
            async with opened as frames:
                return await frames.receive(10.0)

        for digest, index, code in ((bytes(32), 0, "model_unknown"), (DIGEST, 6, "malformed")):
            with pytest.raises(RemoteError) as refused:
                check_granted(await ask(digest, index))
            assert refused.value.code == code
        began = trio.current_time()
        async with contextlib.AsyncExitStack() as stack:
            first = encode_request(BlockRequest(BLOCK, DIGEST, 0))
            streams = [
                await stack.enter_async_context(host.open(one.key, BLOCKS, first))
                for _ in range(PEER_STREAMS_MAX + 1)
            ]
            with pytest.raises(RemoteError):
                check_granted(await streams[-1].receive(10.0))
            for frames in streams[:-1]:
                check_granted(await frames.receive(10.0))
            for frames in streams[:-1]:
                for _ in range(BLOCK_BYTES // 65_536):
                    await frames.receive(30.0)
        assert trio.current_time() - began == pytest.approx(PEER_STREAMS_MAX, rel=0.1)
