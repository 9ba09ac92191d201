"""A node's spans: of jobs it admitted and audits it computed, and of nothing else."""

from __future__ import annotations

from assay_network.tracing import Span
from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.engine.interface import Chunk, Generate, Replayed
from assay_node.tracing import NodeTraces
from assay_protocol.codec import encode
from assay_protocol.hashing import pack_tokens
from assay_protocol.messages import AuditTask, StartJob
from assay_protocol.signing import seal
from node.app_world import CLIENT, COORDINATOR, SAMPLER
from node.core.node_bench import make_ticket

TICKET = make_ticket(1)
FRAME = encode(
    StartJob(
        ticket=seal(COORDINATOR, TICKET), nonce=bytes(32), prompt=pack_tokens(range(TICKET.n_in))
    )
)
BEGUN = do.StartGenerate(1, Generate((1,), 0, 9, SAMPLER, bytes(32)), bytes(32))


def observed(*happened: tuple[int, on.Event, list[do.Effect]]) -> list[Span]:
    spans: list[Span] = []
    traces = NodeTraces(spans.append)
    for now, event, effects in happened:
        traces.observe(now, event, effects)
    return spans


def opened(frame: bytes = FRAME) -> on.StreamOpened:
    return on.StreamOpened(1, CLIENT.public_key, frame)


def test_an_answer_is_four_spans() -> None:
    queue, prefill, decode, answer = observed(
        (10, opened(), [BEGUN]),
        (30, on.Drawn(1, Chunk((5,), b"", None)), []),
        (70, on.Drawn(1, Chunk((6, 7), b"", "length")), [do.SendFrame(1, b"r", last=True)]),
        (90, on.StreamLost(1), []),
    )
    assert [(one.began_us, one.ended_us) for one in (queue, prefill, decode, answer)] == [
        (10, 10),
        (10, 30),
        (30, 70),
        (10, 70),
    ]
    assert answer.attributes["gen_ai.usage.output_tokens"] == 3
    assert answer.attributes["assay.finish"] == "length"
    assert (answer.error, answer.under) == ("", TICKET.seed_ticket)


def test_what_the_node_refused_is_no_span() -> None:
    """A ticket that nobody checked must not put spans into another's trace."""
    refused = [do.SendFrame(1, b"no", last=True), do.CloseStream(1)]
    assert observed((1, opened(), refused), (2, on.StreamLost(1), [])) == []
    assert observed((1, opened(b"\xc1"), []), (2, on.StreamLost(1), [])) == []
    unknown = on.ReplayFailed(bytes(16), "timeout")
    assert observed((1, on.Noticed(b"\xc1"), []), (2, unknown, [])) == []


def test_an_engine_that_stops_and_a_client_that_leaves() -> None:
    *_, answer = observed((1, opened(), [BEGUN]), (5, on.EngineStopped(1, "engine_failed"), []))
    assert answer.error == "engine_failed"
    *_, left = observed((1, opened(), [BEGUN]), (5, on.StreamLost(1), []))
    assert (left.error, left.attributes["assay.finish"]) == ("peer_gone", "cancelled")


def test_a_replay_hangs_on_the_audit_of_its_ticket() -> None:
    task = AuditTask(
        audit=b"\x07" * 16,
        ticket=TICKET.ticket,
        seed_ticket=TICKET.seed_ticket,
        model=TICKET.model,
        sampler=SAMPLER,
        max_tokens=9,
        start=0,
        n_in=4,
        n_out=9,
        prompt_hash=bytes(32),
        nonce_commitment=bytes(32),
        output_hash=bytes(32),
        finish="length",
        deadline_at=99,
    )
    done = on.ReplayDone(task.audit, Replayed((), b"", (), ()))
    (replay,) = observed((1, on.Noticed(encode(task)), []), (8, done, []), (9, done, []))
    assert (replay.began_us, replay.ended_us, replay.under) == (1, 8, TICKET.ticket)
    (failed,) = observed(
        (1, on.Noticed(encode(task)), []), (8, on.ReplayFailed(task.audit, "timeout"), [])
    )
    assert failed.error == "timeout"
