"""Answers held to a grammar: how callers say it, that only nodes see it, how it is checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay import AsyncClient, JobFailed, read_records, verify_answer
from assay.answer_grammar import answer_grammar
from assay.core import JobMachine
from assay.events import AskTicket, Begin, Ended, Granted, OpenStream, Received
from assay.verify import verify
from assay_network.memory import MemoryNetwork
from assay_protocol.cards import encode_card
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError
from assay_protocol.grammars import pack_grammar, read_grammar
from assay_protocol.hashing import grammar_hash
from assay_protocol.messages import Error, StartJob
from sdk.client_network import CARD, FakeNetwork, running
from sdk.client_world import (
    CLIENT,
    COORDINATOR,
    GREEDY,
    NONCE,
    FakeCoordinator,
    make_job,
    node_key,
)

NODES = [node_key(0), node_key(1)]
SECRET = {"type": "object", "title": "a secret of the prompt"}
NUMBERS = {"regex": "([0-9]+ )*"}  # what the toy model writes
LETTERS = {"regex": "[a-z ]*"}


# ---- how callers say it ----


@pytest.mark.parametrize(
    ("response_format", "grammar", "packed"),
    [
        (None, None, None),
        ({"type": "text"}, None, None),
        ({"type": "json_object"}, None, b'json_schema\n{"type": "object"}'),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "é"}}},
            None,
            'json_schema\n{"const": "é"}'.encode(),
        ),
        (None, {"regex": "a+"}, b"regex\na+"),
        (None, {"lark": "start: /a/"}, b"lark\nstart: /a/"),
        (None, {"json_schema": "{}"}, b"json_schema\n{}"),
    ],
)
def test_ways_to_say_it(response_format: Any, grammar: Any, packed: bytes | None) -> None:
    assert answer_grammar(response_format, grammar) == packed


def test_llama_cpps_form_is_translated_here() -> None:
    packed = answer_grammar(None, {"gbnf": 'root ::= "yes" | "no"'})
    assert packed is not None
    kind, text = read_grammar(packed)
    assert (kind, "yes" in text, "start" in text) == ("lark", True, True)


@pytest.mark.parametrize(
    ("response_format", "grammar"),
    [
        ({"type": "json_object"}, {"regex": "a"}),
        ({"type": "xml"}, None),
        ({}, None),
        ({"type": "json_schema"}, None),
        ({"type": "json_schema", "json_schema": {"schema": []}}, None),
        ({"type": "json_schema", "json_schema": {"schema": {"a": object()}}}, None),
        ({"type": "json_schema", "json_schema": {"schema": {"a": "x" * 20_000}}}, None),
        (None, {}),
        (None, {"regex": "a", "lark": "b"}),
        (None, {"perl": "a"}),
        (None, {"gbnf": "root ::= ("}),
        (None, {"regex": "\ud800"}),
    ],
)
def test_what_says_nothing_is_refused(response_format: Any, grammar: Any) -> None:
    with pytest.raises(AssayError) as caught:
        answer_grammar(response_format, grammar)
    assert caught.value.code == "grammar_refused"


# ---- who sees it ----


def test_the_coordinator_sees_a_salted_hash_and_every_node_the_text() -> None:
    packed = pack_grammar("json_schema", json.dumps(SECRET))
    sampler = replace(GREEDY, grammar=grammar_hash(NONCE, packed))
    job, coordinator = make_job(sampler=sampler, grammar=packed), FakeCoordinator()
    machine = JobMachine(job, CLIENT, COORDINATOR.public_key)
    [asked] = machine.handle(0, Begin())
    assert isinstance(asked, AskTicket)
    assert asked.body.sampler.grammar == grammar_hash(NONCE, packed)
    assert b"secret" not in encode(asked.body)
    assert "secret" not in repr(job)
    grant = coordinator.grant(asked.body)
    assert b"secret" not in grant.ticket
    [opened] = machine.handle(0, Granted(asked.attempt, grant))
    assert isinstance(opened, OpenStream)
    assert decode_as(StartJob, opened.first).grammar == packed


def test_a_refused_grammar_ends_the_job_for_no_node_would_read_it() -> None:
    packed = pack_grammar("regex", "a+")
    sampler = replace(GREEDY, grammar=grammar_hash(NONCE, packed))
    job, coordinator = make_job(sampler=sampler, grammar=packed), FakeCoordinator()
    machine = JobMachine(job, CLIENT, COORDINATOR.public_key)
    [asked] = machine.handle(0, Begin())
    assert isinstance(asked, AskTicket)
    machine.handle(0, Granted(asked.attempt, coordinator.grant(asked.body)))
    refusal = encode(Error(code="grammar_refused", detail=""))
    ended = machine.handle(0, Received(machine.attempt, refusal))[-1]
    assert isinstance(ended, Ended)
    assert ended.outcome.error is not None
    assert ended.outcome.error.code == "grammar_refused"
    assert len(coordinator.asked) == 1


# ---- what can be checked ----


async def _answer(fake: FakeNetwork, receipts: Path | None = None, **options: Any) -> Any:
    memory = MemoryNetwork(latency=lambda a, b: 0.02)
    fake.coordinator.nodes = len(NODES)
    async with running(fake, memory, NODES):
        transports = [memory.transport(CLIENT.public_key)]
        async with AsyncClient.connect(
            fake.address, seed=CLIENT.seed, transports=transports, receipts=receipts
        ) as client:
            return await client.complete((11, 12, 13), **options)


async def test_an_answer_is_checked_offline_over_a_resume(
    autojump_clock: object, tmp_path: Path
) -> None:
    fake = FakeNetwork(end_at=60, lose_after={0: 40})
    options: dict[str, Any] = {"max_tokens": 100, "grammar": NUMBERS}
    result = await _answer(fake, tmp_path / "receipts", **options)
    assert len(fake.coordinator.asked) == 2
    assert {asked.sampler for asked in fake.coordinator.asked} == {
        fake.coordinator.asked[0].sampler
    }
    kept = read_records((tmp_path / "receipts").read_bytes())
    assert kept == result.receipts
    assert kept[-1].grammar == b"regex\n([0-9]+ )*"
    checked = verify_answer(kept, COORDINATOR.public_key, CARD)
    assert checked.ok
    assert [step.ok for step in checked.steps if "follows its grammar" in step.name] == [True]
    without = verify(kept[-1])
    assert without.ok
    assert [step.ok for step in without.steps if step.name == "follows its grammar"] == [None]


async def test_an_answer_that_left_its_grammar_does_not_verify(autojump_clock: object) -> None:
    result = await _answer(FakeNetwork(end_at=5), max_tokens=20, grammar=LETTERS)
    [record] = result.receipts
    checked = verify(record, None, CARD)
    assert checked.failed == ("follows its grammar",)
    for changed in (None, b"regex\n([0-9]+ )*"):
        assert verify(replace(record, grammar=changed), None, CARD).failed == ("grammar",)
    other = replace(CARD, digest=b"\x09" * 32)
    assert encode_card(other)
    assert verify(record, None, other).failed == ("follows its grammar",)


async def test_a_grammar_that_is_none_fails_before_anything_is_sent(
    autojump_clock: object,
) -> None:
    fake = FakeNetwork()
    with pytest.raises(AssayError) as caught:
        await _answer(fake, grammar={"regex": "a" * 20_000})
    assert caught.value.code == "grammar_refused"
    assert not isinstance(caught.value, JobFailed)
    assert fake.coordinator.asked == []
