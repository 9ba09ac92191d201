"""One node, several models: an offer each, the right engine for each job, loads and evictions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.parameters import Parameters
from assay_protocol.codec import decode, encode
from assay_protocol.errors import RemoteError
from assay_protocol.messages import (
    AuditDecline,
    Error,
    Heartbeat,
    ModelLoad,
    Receipt,
    Register,
    Registered,
    Ticket,
)
from assay_protocol.signing import open_signed
from node.core.audit_bench import AUDIT, accept, sealed, task, tell
from node.core.node_bench import (
    END,
    MODEL,
    NODE,
    SECOND,
    SERVED,
    Bench,
    finished_job,
    make_bench,
    make_ticket,
)

OTHER = b"o" * 32
FIRST = replace(SERVED, need_bytes=6, load_us=SECOND)
LATTER = replace(
    SERVED,
    model=OTHER,
    class_id="other",
    context=128,
    n_vocab=50,
    need_bytes=6,
    load_us=SECOND,
)
BOUNDS = Parameters(queue_max=1, audits_max=2)


def make_several(budget_bytes: int = 20) -> Bench:
    return make_bench(
        served=(FIRST, LATTER),
        parameters=BOUNDS,
        budget_bytes=budget_bytes,
        resident=(OTHER, MODEL) if budget_bytes > 10 else (MODEL,),
    )


def started(bench: Bench) -> dict[int, bytes]:
    """Engines by the streams they answer."""
    return {one.stream: one.engine for one in bench.of(do.StartGenerate)}


def beat(bench: Bench) -> Heartbeat:
    [request] = bench.requests(bench.later(6 * SECOND), Heartbeat)
    message = decode(request.body)
    assert isinstance(message, Heartbeat)
    return message


def test_each_model_is_an_offer_of_its_own() -> None:
    bench = make_several()
    [request] = bench.requests(bench.done, Register)
    message = decode(request.body)
    assert isinstance(message, Register)
    told = [(o.model, o.class_id, o.slots, o.context) for o in message.offers]
    assert told == [(MODEL, "scripted", 2, 64), (OTHER, "other", 2, 128)]


def test_a_job_gets_the_engine_the_class_and_the_context_of_its_model() -> None:
    bench = make_several()
    one = bench.start(1, make_ticket(1))
    two = bench.start(2, make_ticket(2, model=OTHER, max_tokens=100))
    assert started(bench) == {1: MODEL, 2: OTHER}
    for client, class_id in ((one, "scripted"), (two, "other")):
        client.draw(11, END, finish="stop")
        assert client.end.receipt_blob is not None
        receipt = open_signed(Receipt, client.end.receipt_blob, NODE.public_key)
        assert receipt.class_id == class_id


def test_a_model_nobody_serves_is_unknown_and_each_has_its_own_vocabulary() -> None:
    bench = make_several()
    assert refusal(bench, make_ticket(1, model=bytes(32))).code == "model_unknown"
    wide = (60, 61)
    assert refusal(bench, make_ticket(2, wide, model=OTHER), wide).code == "malformed"
    bench.start(3, make_ticket(3, wide), wide)
    assert started(bench) == {3: MODEL}


def refusal(bench: Bench, ticket: Ticket, prompt: tuple[int, ...] = (5, 6, 7)) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        bench.start(90, ticket, prompt)
    return caught.value


def test_one_busy_model_leaves_the_places_of_the_other() -> None:
    bench = make_several()
    for number in range(1, 4):
        bench.start(number, make_ticket(number))
    assert refusal(bench, make_ticket(4)).code == "busy"
    bench.start(9, make_ticket(9, model=OTHER))
    assert started(bench) == {1: MODEL, 2: MODEL}, "the slots are shared"
    told = beat(bench)
    assert (told.running, told.waiting, told.free_slots) == (2, 2, 0)
    assert told.models == (
        ModelLoad(model=MODEL, jobs=3, wait_ms=0),
        ModelLoad(model=OTHER, jobs=1, wait_ms=0),
    )
    bench.post(on.StreamLost(1))
    assert started(bench)[9] == OTHER


def test_a_node_of_one_model_says_nothing_new_and_leaves_the_queue_to_its_engine() -> None:
    bench = make_bench()
    for number in range(1, 4):
        bench.start(number, make_ticket(number))
    assert started(bench) == dict.fromkeys((1, 2, 3), MODEL)
    assert beat(bench).models is None


def test_a_job_for_an_evicted_model_loads_it_and_the_answer_follows() -> None:
    bench = make_several(budget_bytes=10)
    bench.start(1, make_ticket(1, model=OTHER))
    assert bench.of(do.CloseEngine) == [do.CloseEngine(MODEL)]
    assert not started(bench)
    bench.post(on.EngineClosed(MODEL))
    assert bench.of(do.OpenEngine) == [do.OpenEngine(OTHER)]
    told = beat(bench).models
    assert told is not None
    assert told[1].wait_ms == 1
    bench.post(on.EngineOpened(OTHER))
    assert started(bench) == {1: OTHER}


def test_who_waits_too_long_is_told_when_to_come_back() -> None:
    bench = make_several(budget_bytes=10)
    bench.start(1, make_ticket(1))
    bench.start(2, make_ticket(2, model=OTHER))
    bench.later(BOUNDS.load_wait_us)
    [frame] = bench.of(do.SendFrame)
    error = decode(frame.frame)
    assert isinstance(error, Error)
    assert (frame.stream, error.code) == (2, "busy")
    assert error.retry_after_ms is not None
    assert error.retry_after_ms >= 1_000
    assert bench.node.jobs_by_model() == {MODEL: 1}


def test_a_client_that_leaves_while_its_model_is_loaded_is_forgotten() -> None:
    bench = make_several(budget_bytes=10)
    bench.start(1, make_ticket(1, model=OTHER))
    bench.post(on.StreamLost(1))
    bench.post(on.EngineClosed(MODEL))
    bench.post(on.EngineOpened(OTHER))
    assert not started(bench)
    assert bench.node.running == 0


def test_a_model_that_cannot_be_loaded_is_no_longer_offered_and_comes_back() -> None:
    bench = make_several(budget_bytes=10)
    bench.start(1, make_ticket(1, model=OTHER))
    bench.post(on.EngineClosed(MODEL))
    effects = bench.post(on.EngineNotOpened(OTHER))
    [frame] = bench.of(do.SendFrame, effects)
    error = decode(frame.frame)
    assert isinstance(error, Error)
    assert error.code == "engine_failed"
    assert offered(bench, effects) == [MODEL]
    effects = bench.later(BOUNDS.rest_us)
    assert offered(bench, effects) == [MODEL, OTHER]


def offered(bench: Bench, effects: list[do.Effect]) -> list[bytes]:
    """The models of the registration among the effects, which is granted."""
    [request] = bench.requests(effects, Register)
    message = decode(request.body)
    assert isinstance(message, Register)
    answer = Registered(heartbeat_ms=5_000, lease_ms=20_000, state="active", now_at=bench.now)
    bench.post(on.Answered(request.request, encode(answer)))
    return [offer.model for offer in message.offers]


def test_the_only_model_left_stays_on_offer() -> None:
    bench = make_several(budget_bytes=10)
    bench.start(1, make_ticket(1, model=OTHER))
    bench.post(on.EngineClosed(MODEL))
    assert offered(bench, bench.post(on.EngineNotOpened(OTHER))) == [MODEL]
    bench.start(2, make_ticket(2))
    effects = bench.post(on.EngineNotOpened(MODEL))
    assert offered(bench, effects) == [MODEL, OTHER], "a registration has one at least"


def audited_after_eviction() -> Bench:
    """A node that has answered with the first model and loaded the second one since."""
    bench = make_several(budget_bytes=10)
    finished_job(bench)
    bench.start(2, make_ticket(2, model=OTHER))
    bench.post(on.EngineClosed(MODEL))
    bench.post(on.EngineOpened(OTHER))
    bench.post(on.StreamLost(2))
    return bench


def test_a_replay_waits_for_its_model_and_keeps_it() -> None:
    bench = audited_after_eviction()
    key = accept(bench, task())
    assert not bench.of(do.StartReplay, tell(bench, sealed(key)))
    bench.later(BOUNDS.residence_us)
    bench.post(on.EngineClosed(OTHER))
    [replay] = bench.of(do.StartReplay, bench.post(on.EngineOpened(MODEL)))
    assert (replay.audit, replay.engine) == (AUDIT, MODEL)
    bench.later(BOUNDS.residence_us)
    bench.start(3, make_ticket(3, model=OTHER))
    assert do.CloseEngine(MODEL) not in bench.done[-3:]
    effects = bench.post(on.ReplayFailed(AUDIT, "engine_failed"))
    assert do.CloseEngine(MODEL) in effects


def test_a_replay_whose_model_cannot_be_loaded_is_given_back() -> None:
    bench = audited_after_eviction()
    key = accept(bench, task())
    tell(bench, sealed(key))
    assert do.CloseEngine(OTHER) in bench.later(BOUNDS.residence_us)
    bench.post(on.EngineClosed(OTHER))
    effects = bench.post(on.EngineNotOpened(MODEL))
    assert AuditDecline(audit=AUDIT, code="engine_failed") in bench.notices(effects)


def test_a_model_with_an_adapter_shares_the_engine_and_its_answers_are_computed_with_it() -> None:
    adapter, adapted = b"l" * 32, b"x" * 32
    styled = replace(SERVED, model=adapted, base=MODEL, adapter=adapter)
    bench = make_bench(served=(SERVED, styled))
    [request] = bench.requests(bench.done, Register)
    message = decode(request.body)
    assert isinstance(message, Register)
    assert [offer.model for offer in message.offers] == [MODEL, adapted]
    for number, model in enumerate((MODEL, adapted, adapted), 1):
        bench.start(number, make_ticket(number, model=model))
    told = [(one.engine, one.generate.adapter) for one in bench.of(do.StartGenerate)]
    assert told == [(MODEL, None), (MODEL, adapter), (MODEL, adapter)], "its queue is the engine's"
    for model, wanted in ((adapted, adapter), (MODEL, None)):
        asked = task(model=model, audit=model[:16])
        key = accept(bench, asked)
        [replay] = bench.of(do.StartReplay, tell(bench, sealed(key, audit=model[:16])))
        assert (replay.engine, replay.replay.adapter) == (MODEL, wanted)


def test_without_the_adapter_the_model_with_it_is_unknown() -> None:
    bench = make_bench()
    assert refusal(bench, make_ticket(1, model=b"x" * 32)).code == "model_unknown"
    [declined] = bench.notices(tell(bench, task(model=b"x" * 32)))
    assert declined == AuditDecline(audit=AUDIT, code="model_unknown")
