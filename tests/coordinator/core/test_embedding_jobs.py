"""Jobs that embed at the coordinator: who gets them, for how much, and how vectors are weighed."""

from __future__ import annotations

import struct
from dataclasses import replace
from math import hypot
from random import Random
from typing import Any

import pytest

from assay_coordinator.core.calibration import BUILT_IN, Table
from assay_coordinator.core.findings import Asked, Bound, Finding, agree, check_opening, weigh
from assay_coordinator.core.fitting import Trace, fit
from assay_protocol import messages as m
from assay_protocol.embeddings import VectorWriter, embedding_sampler
from assay_protocol.errors import ProtocolError
from assay_protocol.sketches import leaf_distances
from coordinator.core.coordinator_world import MODEL, World, identity, node
from embedding_cases import DIMS, some_vectors

CLIENT = identity(500)
LENGTHS = (5, 1, 2)
ROW = 4 * DIMS
TEXTS = 40
HONEST = 0.002  # of a vector's length: more than any two ways to compute F16 were apart
TICKET = bytes(16)
TOO_LONG = 8_193
ONE_LONG = {"sampler": embedding_sampler((TOO_LONG,)), "n_in": TOO_LONG, "max_tokens": 1}


def asked(world: World, **changes: Any) -> Any:
    sampler = embedding_sampler(LENGTHS)
    fields = {"sampler": sampler, "n_in": sum(LENGTHS), "max_tokens": len(LENGTHS)}
    return world.ask(CLIENT, **(fields | changes))


def worlds(**offers: int | None) -> tuple[World, dict[str, bytes]]:
    """A world with a node for each offer's dims."""
    world = World()
    world.grant(CLIENT.public_key)
    keys = {}
    for index, (name, dims) in enumerate(offers.items()):
        made = node(index)
        world.join(made, dims=dims)
        keys[name] = made.key
    return world, keys


def test_texts_go_to_nodes_that_embed_and_are_charged_by_their_tokens() -> None:
    world, keys = worlds(draws=None, embeds=384)
    for _ in range(8):
        held = asked(world)
        assert (held.ticket.node, held.ticket.price_out) == (keys["embeds"], 0)
        assert held.ticket.price_in > 0
        drawn = world.ask(CLIENT)
        assert isinstance(drawn, m.Error) or drawn.ticket.node == keys["draws"]
    models = world.call(CLIENT.public_key, m.GetModels()).models
    assert [one.dims for one in models] == [None], "of two that disagree the first is believed"


def test_a_crowd_of_fresh_keys_does_not_say_what_a_model_does() -> None:
    world, keys = worlds(one=None, two=384, three=384, four=384)
    assert world.call(CLIENT.public_key, m.GetModels()).models[0].dims == 384
    known = world.coordinator.registry.nodes[keys["one"]]
    known.row = replace(known.row, verified=8)
    assert world.call(CLIENT.public_key, m.GetModels()).models[0].dims is None


def test_a_model_that_does_the_other_thing_is_said_to() -> None:
    world, _ = worlds(draws=None)
    assert asked(world).code == "task_refused"
    world, keys = worlds(one=384, other=384)
    assert world.ask(CLIENT).code == "task_refused"
    assert asked(world).ticket.node in keys.values()
    [told] = world.call(CLIENT.public_key, m.GetModels()).models
    assert (told.model, told.dims) == (MODEL, 384)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"n_in": 9}, "sampler_refused"),
        ({"max_tokens": 4}, "sampler_refused"),
        ({"sampler": replace(embedding_sampler(LENGTHS), temperature=0.5)}, "sampler_refused"),
        (ONE_LONG, "prompt_too_long"),
        ({"sampler": embedding_sampler((4_096,) * 3), "n_in": 12_288, "max_tokens": 3}, ""),
    ],
)
def test_what_is_no_job_to_embed_is_refused(changes: dict[str, Any], code: str) -> None:
    world, _ = worlds(embeds=384)
    answer = asked(world, **changes)
    assert (answer.code if isinstance(answer, m.Error) else "") == code


def test_more_vectors_than_an_answer_holds_are_refused() -> None:
    world, _ = worlds(embeds=16_384)
    many: dict[str, Any] = {"sampler": embedding_sampler((1,) * 65), "n_in": 65, "max_tokens": 65}
    assert asked(world, **many).code == "task_refused"


def test_there_is_no_resume() -> None:
    world, _ = worlds(embeds=384)
    held = asked(world)
    again = asked(world, nonce=held.nonce, resume=m.ResumePoint(ticket=held.ticket.ticket, count=0))
    assert again.code == "resume_refused"


# ---- weighing ----


def off(vectors: bytes, share: float, seed: int = 9) -> bytes:
    """The same vectors, each moved by `share` of its length and made of length 1 again."""
    draw, moved = Random(seed), b""
    for numbers in struct.iter_unpack(f"<{DIMS}f", vectors):
        noise = [draw.gauss(0, 1) for _ in numbers]
        scale = share / hypot(*noise)
        row = [x + scale * y for x, y in zip(numbers, noise, strict=True)]
        moved += struct.pack(f"<{DIMS}f", *(x / hypot(*row) for x in row))
    return moved


def written(vectors: bytes) -> VectorWriter:
    writer = VectorWriter(TICKET, TICKET, bytes(32))
    writer.add(vectors, DIMS)
    return writer


def found(
    theirs: bytes, ours: bytes, executor: str = "x/F", auditor: str = "y/F", **changes: Any
) -> Finding:
    """What an auditor that computed `ours` says of a node that gave `theirs`."""
    mine, its = written(ours), written(theirs)
    leaves = its.leaves()
    receipt = m.Receipt(
        ticket=TICKET,
        class_id=executor,
        output_hash=its.digest(),
        root=leaves.root(executor, its.ends()),
        n_in=its.count,
        n_out=its.count,
        finish="length",
        started_at=0,
        first_at=0,
        ended_at=0,
    )
    opened = m.LeavesOpened(
        audit=TICKET,
        hashes=b"".join(its.ends()),
        logits=b"",
        raws=leaves.raws,
        sketches=leaves.sketches,
    )
    check_opening(receipt, opened)
    reveal = m.AuditReveal(
        audit=TICKET,
        nonce=bytes(32),
        mismatches=(),
        margins=(),
        logits=b"",
        raws=mine.leaves().raws,
        sketches=mine.leaves().sketches,
    )
    bound = Bound(bytes(32), auditor, TICKET, bytes(32), b"")
    said = replace(reveal, **changes)
    return weigh(bound, receipt, opened, said, Asked(mine.count, vectors=True), BUILT_IN)


TRUE = some_vectors(TEXTS)


def test_vectors_of_honest_machines_pass_and_others_are_wrong() -> None:
    for share in (0.0, HONEST, 0.03):
        one = found(off(TRUE, share), TRUE)
        assert not one.wrong, share
        assert not one.doubtful, share
    for bad in (off(TRUE, 0.3), some_vectors(TEXTS, seed=3), TRUE[ROW:] + TRUE[:ROW]):
        assert found(bad, TRUE).wrong
    part = found(off(TRUE, HONEST)[: 32 * ROW] + some_vectors(8, seed=4), TRUE)
    assert part.wrong, "a few texts of many"


def test_one_text_alone_is_enough_to_see_another_model() -> None:
    wrong = sum(
        found(some_vectors(1, seed=50 + i), some_vectors(1, seed=i)).wrong for i in range(40)
    )
    assert wrong == 40


def test_in_an_exact_class_a_bit_is_a_finding() -> None:
    exact = {"executor": "x/E", "auditor": "x/E"}
    assert found(TRUE, TRUE, **exact).equal is True
    almost = found(bytes([TRUE[0] ^ 1]) + TRUE[1:], TRUE, **exact)
    assert (almost.equal, almost.wrong, almost.doubtful) == (False, False, True)
    assert found(TRUE, TRUE, executor="x/E", auditor="y/E").equal is None


def test_auditors_that_made_vectors_up_do_not_agree() -> None:
    liars = [found(TRUE, some_vectors(TEXTS, seed=seed)) for seed in (5, 6)]
    assert all(one.wrong for one in liars)
    assert not agree(BUILT_IN, MODEL, *liars)
    honest = [found(some_vectors(TEXTS, seed=7), off(TRUE, HONEST, seed)) for seed in (1, 2)]
    assert agree(BUILT_IN, MODEL, *honest)


def test_a_reveal_of_vectors_tells_of_no_draws() -> None:
    for changes in ({"gaps": bytes(TEXTS)}, {"mismatches": (0,), "margins": (1,)}, {"raws": b""}):
        with pytest.raises(ProtocolError):
            found(TRUE, TRUE, **changes)


def test_a_table_fitted_from_vectors_sees_what_the_built_in_one_does_not() -> None:
    """Q8_0 in the place of F16 is 0.034 away (docs/verification.md), which version 0 allows."""

    def distances(share: float, seed: int) -> tuple[float, ...]:
        ours = some_vectors(TEXTS, seed)
        both = [written(one).leaves().sketches for one in (off(ours, share, 1_000 + seed), ours)]
        return leaf_distances(*both)

    traces = [Trace(MODEL, "x/F", "y/F", b"", (), distances(0.01, seed)) for seed in range(60)]
    table = Table(fit(1, 0, traces))
    noise = table.noise(MODEL, "x/F", "y/F")
    assert 0.002 < noise.drift < 0.02
    cheap = sum(distances(0.034, 99)) / 3
    assert (cheap - noise.drift) / noise.sd(3) > 10
    assert (cheap - BUILT_IN.noise(MODEL, "x/F", "y/F").drift) < 0
