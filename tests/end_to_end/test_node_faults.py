"""What a running node does when its client, its coordinator, its disk or its owner lets it down."""

from __future__ import annotations

import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from assay import AsyncClient
from assay.answers import Delta
from assay.events import Resumed
from assay_coordinator.operator import ask
from assay_network.frames import Frames
from assay_node.store import ReceiptStore
from assay_protocol import messages as m
from assay_protocol.codec import decode, decode_as, encode
from assay_protocol.errors import AssayError, RemoteError
from assay_protocol.hashing import pack_tokens
from assay_protocol.limits import UNACKED_TOKENS_MAX
from assay_protocol.signing import peek
from assay_simnet.drivers.real import RealNetwork
from end_to_end.scripted_network import (
    CLIENT,
    PROMPT,
    UNHURRIED,
    RawJob,
    granted,
    scripted_network,
    seed_of,
    signed,
    start_coordinator,
    start_paced,
    unbroken,
    wait_booked,
)

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
FAST = 0.0
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


async def test_a_killed_nodes_answer_goes_on_elsewhere_with_the_same_tokens(tmp_path: Path) -> None:
    async with scripted_network(tmp_path) as network:
        for name in ("node-a", "node-b"):
            await start_paced(network, name, 0.01)
        names = {network.key_of(name): name for name in ("node-a", "node-b")}
        resumed, count, killed = [], 0, ""
        async with (
            AsyncClient.connect(network.address, seed=CLIENT.seed, limits=UNHURRIED) as client,
            client.stream_complete(PROMPT, max_tokens=300, temperature=0.8) as stream,
        ):
            async for event in stream:
                if isinstance(event, Resumed):
                    resumed.append(event)
                    continue
                assert isinstance(event, Delta)
                count += len(event.tokens)
                if count >= 70 and not killed:
                    killed = names[event.node]
                    network.kill(killed)
        record = stream.result.receipts[-1]
        ticket = peek(m.Ticket, record.ticket)
        assert [names[event.from_node] for event in resumed] == [killed]
        assert list(stream.result.tokens) == await unbroken(
            PROMPT, 300, seed_of(ticket, record.nonce), ticket.sampler
        )


async def test_a_client_that_stops_reading_is_let_go_and_its_slot_is_free(tmp_path: Path) -> None:
    async with scripted_network(tmp_path) as network:
        await start_paced(network, "node-a", FAST, patience=1.0)
        job = RawJob(await granted(network, 400))
        async with job.open() as frames:
            await job.read(frames, 64)
            await _silent_until_receipt(job, frames)
        assert job.stream.receipt_blob is not None
        receipt = peek(m.Receipt, job.stream.receipt_blob)
        assert receipt.finish == "slow_reader"
        assert receipt.n_out <= 64 + UNACKED_TOKENS_MAX, "the node paused at the window"
        await wait_booked(network, 1)
        assert (await RawJob(await granted(network, 10)).whole()).n_out == 10
        await wait_booked(network, 2)  # the client has its receipt before the coordinator has
        with trio.fail_after(60):  # its next heartbeat says so
            while (node := await network.node("node-a")) is None or node.running:
                await trio.sleep(0.1)


async def _silent_until_receipt(job: RawJob, frames: Frames) -> None:
    """Take what comes, sign for nothing."""
    with trio.fail_after(60):
        while job.stream.receipt_blob is None:
            job.stream.receive(await frames.receive())


async def test_sigterm_lets_the_answer_finish_delivers_its_receipt_and_exits_0(
    tmp_path: Path,
) -> None:
    async with scripted_network(tmp_path) as network:
        await start_paced(network, "node-a", 0.01)
        job = RawJob(await granted(network, 150))
        process = network.processes["node-a"]
        async with job.open() as frames:
            await job.read(frames, 10)
            process.send_signal(signal.SIGTERM)
            await job.read(frames)
            await frames.finish()
        assert len(job.stream.tokens) == 150
        with trio.fail_after(60):
            assert await process.wait() == 0
        assert (await network.status()).jobs == 1, "the receipt was delivered before it left"


async def test_a_second_signal_ends_a_draining_node_with_130(tmp_path: Path) -> None:
    async with scripted_network(tmp_path) as network:
        await start_paced(network, "node-a", 0.05)
        job = RawJob(await granted(network, 1_000))
        process = network.processes["node-a"]
        async with job.open() as frames:
            await job.read(frames, 5)
            process.send_signal(signal.SIGINT)
            await _logged(network, "node-a", "draining")
            process.send_signal(signal.SIGINT)
            with trio.fail_after(60):
                assert await process.wait() == 130


async def test_a_stream_needs_no_coordinator_and_its_receipt_waits_for_it(tmp_path: Path) -> None:
    async with scripted_network(tmp_path) as network:
        await start_paced(network, "node-a", 0.01)
        job = RawJob(await granted(network, 100))
        async with job.open() as frames:
            await job.read(frames, 10)
            await network.kill_and_reap("coordinator")
            await job.read(frames)
            await frames.finish()
        assert len(job.stream.tokens) == 100
        await _logged(network, "node-a", "coordinator_unreachable")
        await start_coordinator(network)
        await wait_booked(network, 1)


async def test_a_node_waits_for_a_coordinator_that_is_not_there_yet(tmp_path: Path) -> None:
    async with scripted_network(tmp_path) as network:
        await network.kill_and_reap("coordinator")
        card = tmp_path / "scripted.card"
        await network.start_node("node-a", card, card, engine="scripted")
        await _logged(network, "node-a", "coordinator_unreachable")
        network.check_alive("node-a")
        await start_coordinator(network)
        await network.wait_present(["node-a"])


async def test_a_full_disk_stops_jobs_and_loses_no_receipt(tmp_path: Path) -> None:
    async with scripted_network(tmp_path) as network:
        await start_paced(network, "node-a", FAST)
        assert (await RawJob(await granted(network, 5)).whole()).n_out == 5
        await wait_booked(network, 1)
        pid = network.processes["node-a"].pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        assert (await RawJob(await granted(network, 6)).whole()).n_out == 6
        with trio.fail_after(60):
            while (code := await _refusal(RawJob(await granted(network, 7)))) is None:
                await trio.sleep(0.1)
        assert code in ("disk_full", "storage_failed")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, NO_LIMIT)
        await wait_booked(network, 2)
        with trio.fail_after(60):
            while await _refusal(RawJob(await granted(network, 8))) is not None:
                await trio.sleep(0.1)
        await network.stop()
    store = ReceiptStore(tmp_path / "node-a" / "receipts.sqlite")
    kept = [peek(m.Receipt, row.receipt).n_out for row in store.export_receipts()]
    store.close()
    assert {5, 6, 8} <= set(kept)


async def _refusal(job: RawJob) -> str | None:
    try:
        await job.whole()
    except RemoteError as error:
        return error.code
    return None


async def test_bad_tickets_and_frames_are_refused_by_name_and_the_node_goes_on(
    tmp_path: Path,
) -> None:
    async with scripted_network(tmp_path) as network:
        await start_paced(network, "node-a", FAST)
        grant = await granted(network, 20)
        honest = RawJob(grant)
        start = decode_as(m.StartJob, honest.first)
        other_prompt = encode(replace(start, prompt=pack_tokens(PROMPT[::-1])))
        other_nonce = encode(replace(start, nonce=bytes(32)))
        told = {
            "ticket_not_mine": await _refusal(RawJob(signed(network, grant, node=bytes(32)))),
            "ticket_expired": await _refusal(RawJob(signed(network, grant, expires_at=1))),
            "prompt_mismatch": await _first(honest, other_prompt),
            "nonce_mismatch": await _first(honest, other_nonce),
            "malformed": await _first(honest, honest.first[:-5]),
            "unknown_message": await _first(honest, b"\x81\x00\xcd\x40\x00"),
            "unexpected_message": await _first(honest, encode(m.Cancel())),
        }
        assert (await honest.whole()).n_out == 20, "nothing of that used the ticket up"
        told["ticket_replayed"] = await _refusal(RawJob(grant))
        assert {wanted: code for wanted, code in told.items() if wanted != code} == {}
        await _oversized(RawJob(await granted(network, 20)))
        await _out_of_turn(RawJob(await granted(network, 400)))
        assert (await RawJob(await granted(network, 20)).whole()).n_out == 20
        network.check_alive("node-a")


async def _first(job: RawJob, first: bytes) -> str | None:
    """What the node answers to this first frame."""
    async with job.open(first) as frames:
        with trio.fail_after(60):
            answer = decode(await frames.receive())
    return answer.code if isinstance(answer, m.Error) else None


async def _oversized(job: RawJob) -> None:
    """A frame announced too long cuts the stream."""
    async with job.open() as frames:
        await frames._stream.write(b"\x7f\xff\xff\xff")
        with pytest.raises(AssayError), trio.fail_after(60):
            while True:
                await frames.receive()


async def _out_of_turn(job: RawJob) -> None:
    """A second StartJob inside a stream ends it with its name."""
    async with job.open() as frames:
        await frames.send(job.first)
        codes = []
        with trio.fail_after(60), pytest.raises(AssayError):
            while True:
                answer = decode(await frames.receive())
                codes += [answer.code] if isinstance(answer, m.Error) else []
        assert codes == ["unexpected_message"]


async def _logged(network: RealNetwork, name: str, event: str) -> None:
    """Wait for an event in a process's log."""
    with trio.fail_after(60):
        while f'"event": "{event}"' not in (network.folder / f"{name}.log").read_text():
            await trio.sleep(0.05)


async def test_garbage_in_a_session_is_refused_and_the_coordinator_goes_on(tmp_path: Path) -> None:
    from assay_network.host import open_host
    from assay_network.identity import split_address
    from assay_network.session import open_session
    from assay_protocol.links import SESSION

    async with scripted_network(tmp_path) as network:
        await start_paced(network, "node-a", FAST)
        key = split_address(network.address)
        odd, even = b"\x81\x00\xcd\x40\x01", b"\x81\x00\xcd\x40\x00"
        bodies = {
            b"": "malformed",
            b"\xc1": "malformed",
            encode(m.GetAccount())[:-1]: "malformed",
            even: "unknown_message",
            odd: "unknown_message",
            encode(m.ReceiptBooked(ticket=bytes(16), charged=1)): "unexpected_message",
            encode(m.Heartbeat(running=0, waiting=0, free_slots=0, draining=False)): (
                "not_registered"
            ),
            encode(m.CloseEpoch()): "forbidden",
            encode(m.SubmitReceipt(receipt=bytes(100))): "malformed",
        }
        async with (
            open_host(CLIENT.seed) as host,
            open_session(host, key, [network.address], SESSION, lambda s, r, b: None) as session,
        ):
            told = {body: decode(await session.request(body, 10)) for body in bodies}
            codes = {b: a.code for b, a in told.items() if isinstance(a, m.Error)}
            assert codes == bodies
            with trio.fail_after(60):
                await session._frames._stream.write(b"\x7f\xff\xff\xff")
                await session.closed.wait()
        assert (await RawJob(await granted(network, 20)).whole()).n_out == 20
        network.check_alive("coordinator")


async def test_a_full_disk_acknowledges_nothing_and_the_coordinator_goes_on(
    tmp_path: Path,
) -> None:
    async with scripted_network(tmp_path) as network:
        await start_paced(network, "node-a", FAST)
        operator, account = network.operator_seed(), bytes([9]) * 32
        grant = m.Grant(account=account, amount=1_000)
        pid = network.processes["coordinator"].pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        for _ in range(3):
            with pytest.raises(RemoteError) as refused:
                await ask(operator, network.address, grant, m.Account)
            assert refused.value.code == "storage_failed"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, NO_LIMIT)
        told = await ask(operator, network.address, grant, m.Account)
        assert told.available == 1_000, "what was refused did not happen"
        await network.wait_present(["node-a"])
        assert (await RawJob(await granted(network, 20)).whole()).n_out == 20
        closed = await ask(operator, network.address, m.CloseEpoch(), m.EpochClosed)
        assert closed.epoch == 1
