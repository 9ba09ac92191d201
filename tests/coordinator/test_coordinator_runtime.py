"""The coordinator's runtime against peers that send what no honest one does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from assay_coordinator import runtime as runtime_module
from assay_coordinator.core.coordinator import Coordinator, Stored
from assay_coordinator.core.epochs import StoredEpochs
from assay_coordinator.core.events import EpochPosted, PostEpoch, PostRound, RoundMined
from assay_coordinator.core.policy import Policy
from assay_coordinator.runtime import (
    Backends,
    Commit,
    Load,
    Observe,
    Runtime,
    Settled,
    Submit,
)
from assay_protocol import messages as m
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError
from assay_protocol.signing import Identity

PEER, OTHER = b"\x07" * 32, b"\x08" * 32
EMPTY = Stored(
    nodes=[],
    balances=[],
    credit=[],
    jobs=[],
    epochs=StoredEpochs(),
    next_posting=1,
    audits=0,
)
ASK_CARD = encode(m.GetPart(what="card", key=bytes(32), offset=0))


class FakeSession:
    """What the runtime needs of a session."""

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.replies: list[tuple[int, Any]] = []
        self.ended = False

    def reply(self, request: int, body: bytes) -> None:
        self.replies.append((request, decode(body)))

    def notify(self, body: bytes) -> None:
        """Nothing is looked at."""

    def end(self, reason: Exception) -> None:
        self.ended = True


class Bundles:
    """A store of bundles that can be made to wait."""

    def __init__(self) -> None:
        self.made = 0
        self.size = 1

    def __call__(self, account: bytes) -> bytes:
        self.made += 1
        return bytes(self.size)


async def _submit(effect: PostEpoch | PostRound) -> None:
    """Durable at once."""


async def _settled(effect: PostEpoch | PostRound) -> EpochPosted | RoundMined:
    if isinstance(effect, PostEpoch):
        return EpochPosted(effect.epoch)
    return RoundMined(effect.number, bytes(32), bytes(32), 1, bytes(32))


def _verdict(client: bytes, ticket: bytes) -> m.JobVerdict:
    if client != PEER:
        raise AssayError("unknown_ticket")
    return m.JobVerdict(ticket=ticket, state="drawn", outcome="", statements=())


def _vote(voter: bytes, seal: bytes) -> None:
    if voter != PEER:
        raise AssayError("forbidden")


@asynccontextmanager
async def running(
    bundle: Any,
    submit: Submit = _submit,
    settled: Settled = _settled,
    commit: Commit = lambda rows: None,
    load: Load = lambda now: EMPTY,
    observe: Observe | None = None,
) -> AsyncIterator[Runtime]:
    identity = Identity(b"\x01" * 32)
    backends = Backends(
        commit=commit,
        load=load,
        documents={"credit": bundle, "verdict": bundle},
        submit=submit,
        settled=settled,
        verdict=_verdict,
        vote=_vote,
        block=lambda: 7,
    )
    runtime = Runtime(
        lambda: Coordinator(Policy(), {}, identity, bytes(32)), backends, {}, lambda: 1, observe
    )
    async with trio.open_nursery() as nursery:
        started = trio.Event()
        nursery.start_soon(runtime.run, started)
        await started.wait()
        yield runtime
        nursery.cancel_scope.cancel()


def round_of(number: int) -> PostRound:
    return PostRound(number, b"note", 1, 16, bytes(32))


def epoch_of(number: int) -> PostEpoch:
    return PostEpoch(number, bytes(32), 0, 0, 0, bytes(32), bytes(32))


async def test_rounds_are_told_in_their_order_and_epochs_for_themselves(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    """However long each takes, and whatever fails first; asked for twice is posted once."""
    written: list[Any] = []
    seconds = {round_of(1): 30, round_of(2): 1, epoch_of(1): 700, epoch_of(2): 5}
    began = trio.current_time()

    async def submit(effect: PostEpoch | PostRound) -> None:
        if effect == round_of(2) and not written.count(effect):
            written.append(effect)
            raise AssayError("storage_failed")
        written.append(effect)

    async def settled(effect: PostEpoch | PostRound) -> EpochPosted | RoundMined:
        await trio.sleep_until(
            began + seconds[effect]
        )  # 700: a wait is given up before, and goes on
        return await _settled(effect)

    async with running(Bundles(), submit, settled) as runtime:
        told: list[Any] = []
        put = runtime._put

        def keep(event: Any, size: int = 0) -> None:
            if isinstance(event, EpochPosted | RoundMined):
                told.append(event)
            put(event, size)

        monkeypatch.setattr(runtime, "_put", keep)
        for effect in (round_of(1), round_of(2), epoch_of(1), epoch_of(2), round_of(1)):
            runtime._to_post.send_nowait(effect)
        await trio.sleep(2_000)
    assert [one.number for one in told if isinstance(one, RoundMined)] == [1, 2]
    assert [one.epoch for one in told if isinstance(one, EpochPosted)] == [1, 2]
    assert isinstance(told[0], RoundMined), "rounds wait for no epoch"
    assert written == [round_of(1), round_of(2), round_of(2), epoch_of(1), epoch_of(2)]


async def answered(session: FakeSession, count: int) -> None:
    with trio.fail_after(20):
        while len(session.replies) < count:
            await trio.sleep(0.001)


async def test_a_vote_is_counted_beside_the_core_and_answered() -> None:
    async with running(Bundles()) as runtime:
        session: Any = FakeSession(PEER)
        on_frame = runtime.opened(session)
        on_frame(session, 5, encode(m.VoteBlock(seal=bytes(70))))
        stranger: Any = FakeSession(b"\x09" * 32)
        runtime.opened(stranger)(stranger, 6, encode(m.VoteBlock(seal=bytes(70))))
        await answered(session, 1)
        await answered(stranger, 1)
    assert session.replies[0][1] == m.Done()
    refused = stranger.replies[0][1]
    assert isinstance(refused, m.Error)
    assert refused.code == "forbidden"


async def test_a_notice_that_asks_for_a_document_ends_nothing() -> None:
    async with running(Bundles()) as runtime:
        session: Any = FakeSession(PEER)
        on_frame = runtime.opened(session)
        on_frame(session, 0, ASK_CARD)
        on_frame(session, 5, ASK_CARD)
        await answered(session, 1)
        assert session.replies[0][0] == 5


async def test_verdicts_and_tables_are_served_by_name() -> None:
    async with running(Bundles()) as runtime:
        session: Any = FakeSession(PEER)
        on_frame = runtime.opened(session)
        asked = (("verdict", bytes(32)), ("calibration", (7).to_bytes(32, "big")), ("x", bytes(32)))
        for request, (what, key) in enumerate(asked, 1):
            on_frame(session, request, encode(m.GetPart(what=what, key=key, offset=0)))
        await answered(session, 3)
        answers = dict(session.replies)
        assert answers[1] == m.Part(total=1, data=bytes(1))
        assert answers[2].code == "calibration_unknown"
        assert answers[3].code == "unexpected_message"


async def test_lookups_that_wait_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(runtime_module, "LOOKUPS_WAITING_MAX", 3)
    async with running(Bundles()) as runtime:
        for limiter in (runtime._readers,):
            limiter.total_tokens = 1
            await limiter.acquire_on_behalf_of(object())
        session: Any = FakeSession(PEER)
        on_frame = runtime.opened(session)
        for request in range(1, 11):
            on_frame(
                session,
                request,
                encode(m.GetPart(what="credit", key=bytes([request]) * 32, offset=0)),
            )
        await answered(session, 7)
        await trio.testing.wait_all_tasks_blocked()
        assert [answer.code for _, answer in session.replies] == ["busy"] * 7
        assert len(runtime._requests) == 3


async def test_large_bundles_are_not_all_kept(monkeypatch: Any) -> None:
    monkeypatch.setattr(runtime_module, "DOCUMENT_BYTES_CACHED_MAX", 250)
    bundles = Bundles()
    bundles.size = 100
    async with running(bundles) as runtime:
        session: Any = FakeSession(PEER)
        on_frame = runtime.opened(session)
        for request in range(1, 6):
            on_frame(
                session,
                request,
                encode(m.GetPart(what="credit", key=bytes([request]) * 32, offset=0)),
            )
        await answered(session, 5)
        assert len(runtime._kept) == 2


async def test_one_peer_cannot_fill_the_queue_for_all(monkeypatch: Any) -> None:
    monkeypatch.setattr(runtime_module, "PEER_EVENTS_MAX", 4)
    async with running(Bundles()) as runtime:
        flooder: Any = FakeSession(PEER)
        honest: Any = FakeSession(OTHER)
        flood, ask = runtime.opened(flooder), runtime.opened(honest)
        for _ in range(4):
            flood(flooder, 0, encode(m.GetAccount()))
        flood(flooder, 9, encode(m.GetAccount()))
        assert [answer.code for _, answer in flooder.replies] == ["busy"]
        assert not flooder.ended
        flood(flooder, 0, encode(m.GetAccount()))
        assert flooder.ended
        ask(honest, 1, encode(m.GetAccount()))
        await answered(honest, 1)
        assert isinstance(honest.replies[0][1], m.Account)
        again: Any = FakeSession(PEER)
        runtime.opened(again)(again, 1, encode(m.GetAccount()))
        await answered(again, 1)
        assert isinstance(again.replies[0][1], m.Account)


async def test_a_ticket_s_verdict_is_for_its_client_alone() -> None:
    async with running(Bundles()) as runtime:
        asked = encode(m.GetVerdict(ticket=bytes(16)))
        mine: Any = FakeSession(PEER)
        other: Any = FakeSession(OTHER)
        for session in (mine, other):
            on_frame = runtime.opened(session)
            on_frame(session, 0, asked)
            on_frame(session, 4, asked)
            await answered(session, 1)
        assert [(n, answer.state) for n, answer in mine.replies] == [(4, "drawn")]
        assert [(n, answer.code) for n, answer in other.replies] == [(4, "unknown_ticket")]


async def test_a_document_nobody_makes_is_refused() -> None:
    async with running(Bundles()) as runtime:
        session: Any = FakeSession(PEER)
        on_frame = runtime.opened(session)
        on_frame(session, 1, encode(m.GetPart(what="rumours", key=bytes(32), offset=0)))
        await answered(session, 1)
        assert session.replies[0][1].code == "unexpected_message"
