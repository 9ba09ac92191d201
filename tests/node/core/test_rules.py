"""A node obeys governance: what it takes for rules, when, and what it then refuses."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.rules import Rules, RulesFetch, Source
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.messages import (
    AuditAccept,
    AuditDecline,
    AuditTask,
    Error,
    GetPart,
    ModelRule,
    ModerationPolicy,
    NetworkRules,
    Part,
    Register,
)
from assay_protocol.moderation import policy_digest
from assay_protocol.signing import Identity, seal
from node.core.node_bench import (
    END,
    MODEL,
    NOW,
    SAMPLER,
    SECOND,
    SERVED,
    Bench,
    make_bench,
    make_ticket,
)

AUTHOR = Identity(b"\x09" * 32)
OTHER = b"o" * 32
PIECES = (b"", *(bytes([i]) for i in range(1, 100)))
READS = replace(SERVED, pieces=PIECES)
WORD = tuple(b"BAD")  # below 100, so that each is a token
DIGEST = b"\x77" * 32


def rules(version: int = 1, *, phrases: tuple[str, ...] = (), **changes: Any) -> NetworkRules:
    policy, author, moderation = b"", b"", bytes(32)
    if phrases:
        made = ModerationPolicy(name="p", version=1, issued_at=1, phrases=phrases)
        policy, author = seal(AUTHOR, made), AUTHOR.public_key
        moderation = policy_digest(policy)
    fields: dict[str, Any] = {
        "chain": 5,
        "registry": b"r" * 20,
        "block": 9,
        "version": version,
        "open": True,
        "models": (),
        "moderation": moderation,
        "policy": policy,
        "policy_author": author,
    }
    return NetworkRules(**(fields | changes))


def denies(*models: bytes, version: int = 1, **changes: Any) -> NetworkRules:
    listed = tuple(ModelRule(model=model, allowed=False) for model in models)
    return rules(version, models=listed, **changes)


def tell(bench: Bench, told: NetworkRules, *, keep: bool = True) -> list[do.Effect]:
    """The next heartbeat names them, the coordinator gives them out, the disk takes them."""
    beat = bench.later(5 * SECOND)
    before = len(bench.done)
    bench.answer_heartbeat(beat, rules=digest_of(told))
    effects: list[do.Effect] = []
    for request in bench.requests(bench.done[before:], GetPart):
        document = encode(told)
        part = Part(total=len(document), data=document)
        effects += bench.post(on.Answered(request.request, encode(part)))
    if keep and bench.of(do.KeepRules, effects):
        effects += bench.post(on.RulesKept())
    return effects


def digest_of(told: NetworkRules) -> bytes:
    return sha256(encode(told)).digest()


def refusals(bench: Bench, number: int, prompt: tuple[int, ...] = (5, 6, 7)) -> list[str]:
    """What a client of a new job is refused with; nothing if it is begun."""
    ticket = make_ticket(number, prompt, issued_at=bench.now, expires_at=bench.now + 600 * SECOND)
    before = len(bench.done)
    try:
        bench.start(number, ticket, prompt)
    except AssayError as error:
        return [error.code]
    assert bench.of(do.StartGenerate, bench.done[before:])
    return []


def test_without_rules_everything_is_allowed() -> None:
    none = Rules()
    assert none.allows(MODEL)
    none.check_prompt(READS, WORD)


def test_a_denied_model_is_refused_and_allowed_again() -> None:
    bench = make_bench()
    assert tell(bench, denies(MODEL))
    assert refusals(bench, 1) == ["model_denied"]
    tell(bench, rules(2))
    assert refusals(bench, 2) == []


def test_a_closed_list_denies_what_it_does_not_name() -> None:
    held = Rules()
    told = rules(open=False, models=(ModelRule(model=MODEL, allowed=True),))
    held.obey(encode(told), told)
    assert held.allows(MODEL)
    assert not held.allows(OTHER)


def test_rules_are_durable_before_they_are_obeyed() -> None:
    bench = make_bench()
    effects = tell(bench, denies(MODEL), keep=False)
    [kept] = bench.of(do.KeepRules, effects)
    assert decode(kept.document) == kept.rules
    assert refusals(bench, 1) == []  # not yet
    bench.post(on.RulesKept())
    assert refusals(bench, 2) == ["model_denied"]


@pytest.mark.parametrize("code", ["disk_full", "chain_unavailable"])
def test_what_could_not_be_kept_is_tried_again(code: str) -> None:
    bench = make_bench()
    tell(bench, denies(MODEL), keep=False)
    bench.post(on.RulesNotKept(code))
    assert refusals(bench, 1) == []
    tell(bench, denies(MODEL))
    assert refusals(bench, 2) == ["model_denied"]


def test_what_the_chain_contradicts_is_not_asked_for_again() -> None:
    bench = make_bench()
    tell(bench, denies(MODEL), keep=False)
    bench.post(on.RulesNotKept("rules_invalid"))
    assert tell(bench, denies(MODEL)) == []
    assert refusals(bench, 1) == []


def test_a_running_job_of_a_newly_denied_model_finishes() -> None:
    bench = make_bench()
    client = bench.start(1, make_ticket(1))
    client.draw(11, 12)
    tell(bench, denies(MODEL))
    client.draw(13, END, finish="stop")
    assert client.end.receipt_blob is not None


def test_a_refused_prompt_costs_its_ticket_and_says_nothing() -> None:
    bench = make_bench(served=(READS,))
    tell(bench, rules(phrases=("bad",)))
    assert refusals(bench, 1, (7, *WORD, 8)) == ["prompt_refused"]
    assert refusals(bench, 1, (7, *WORD, 8)) == ["ticket_replayed"]
    assert refusals(bench, 2, (7, 8)) == []
    sent = [decode(one.frame) for one in bench.of(do.SendFrame)]
    details = [one.detail for one in sent if isinstance(one, Error)]
    logged = repr(bench.of(do.Log))
    assert all("bad" not in text.lower() for text in (*details, logged))


def test_a_node_that_cannot_read_prompts_takes_none_under_a_policy() -> None:
    bench = make_bench()
    tell(bench, rules(phrases=("bad",)))
    assert refusals(bench, 1) == ["model_unknown"]
    tell(bench, rules(2))
    assert refusals(bench, 2) == []


def test_offers_of_denied_models_are_withdrawn_and_come_back() -> None:
    bench = make_bench(served=(SERVED, replace(SERVED, model=OTHER)))
    offered = [one.model for one in _registered(bench, tell(bench, denies(MODEL))).offers]
    assert offered == [OTHER]
    offered = [one.model for one in _registered(bench, tell(bench, rules(2))).offers]
    assert offered == [MODEL, OTHER]


def test_a_node_of_denied_models_alone_keeps_its_lease() -> None:
    bench = make_bench()
    effects = tell(bench, denies(MODEL))
    assert bench.requests(effects, Register) == []  # it offers what it offered
    assert refusals(bench, 1) == ["model_denied"]


def _registered(bench: Bench, effects: list[do.Effect]) -> Register:
    [request] = bench.requests(effects, Register)
    message = decode(request.body)
    assert isinstance(message, Register)
    from assay_protocol.messages import Registered

    answer = Registered(heartbeat_ms=5_000, lease_ms=20_000, state="active", now_at=bench.now)
    bench.post(on.Answered(request.request, encode(answer)))
    return message


def test_an_auditor_replays_what_the_network_once_allowed() -> None:
    bench = make_bench()
    tell(bench, denies(MODEL))
    task = AuditTask(
        audit=b"a" * 16,
        ticket=b"t" * 16,
        model=MODEL,
        sampler=SAMPLER,
        n_in=3,
        n_out=2,
        start=0,
        prompt_hash=DIGEST,
        nonce_commitment=DIGEST,
        seed_ticket=b"t" * 16,
        output_hash=DIGEST,
        max_tokens=8,
        finish="stop",
        deadline_at=bench.now + 60 * SECOND,
    )
    notices = bench.notices(bench.post(on.Noticed(encode(task))))
    assert [type(one) for one in notices] == [AuditAccept], AuditDecline


# ---- which rules are valid ----


def _in_force(told: NetworkRules, source: Source | None = None) -> Rules:
    held = Rules(source)
    document = encode(told)
    held.obey(document, held.judge(document))
    return held


@pytest.mark.parametrize(
    "wrong",
    [
        rules(2, chain=6),
        rules(2, registry=b"q" * 20),
        rules(0),
        rules(1, open=False),  # another content of the version in force
        rules(2, moderation=DIGEST),  # without the policy
        replace(rules(2, phrases=("x",)), policy=b"?"),
        replace(rules(2, phrases=("x",)), policy_author=b"z" * 32),
        replace(rules(2, phrases=("x",)), moderation=bytes(32)),
        rules(2, models=(ModelRule(model=MODEL, allowed=True),) * 2),
    ],
)
def test_invalid_rules_change_nothing(wrong: NetworkRules) -> None:
    held = _in_force(rules(1))
    with pytest.raises(ProtocolError, match="rules_invalid"):
        held.judge(encode(wrong))
    bench = make_bench()
    tell(bench, rules(1))
    tell(bench, wrong)
    [log] = [one for one in bench.of(do.Log) if one.event == "rules_refused"]
    assert bench.node.rules.version == 1
    assert ("code", "rules_invalid") in log.fields


def test_the_same_version_read_at_another_block_is_the_same() -> None:
    held = _in_force(rules(1, block=9))
    held.judge(encode(rules(1, block=12)))


def test_the_owner_names_chain_and_registry() -> None:
    with pytest.raises(ProtocolError, match="rules_invalid"):
        Rules(Source(chain=6)).judge(encode(rules()))
    with pytest.raises(ProtocolError, match="rules_invalid"):
        Rules(Source(registry=b"q" * 20)).judge(encode(rules()))
    assert Rules(Source(5, b"r" * 20)).judge(encode(rules())) == rules()


def test_what_was_kept_is_in_force_at_the_next_start() -> None:
    held = Rules(kept=encode(denies(MODEL, version=4, phrases=("bad",))))
    assert (held.version, held.allows(MODEL)) == (4, False)
    with pytest.raises(AssayError, match="prompt_refused"):
        held.check_prompt(READS, WORD)
    with pytest.raises(ProtocolError, match="rules_invalid"):
        Rules(Source(chain=6), encode(rules()))


@given(st.binary(max_size=80))
def test_any_document_is_rules_or_rules_invalid(document: bytes) -> None:
    with pytest.raises(ProtocolError, match="rules_invalid"):
        Rules().judge(document)


# ---- how they are fetched ----


def test_a_long_document_comes_in_parts_and_once() -> None:
    fetch, document = RulesFetch(Rules()), encode(rules(phrases=tuple(f"p{i}" for i in range(99))))
    question = fetch.told(DIGEST)
    asked = 0
    effects: list[do.Effect] = []
    while question is not None:
        asked += 1
        assert fetch.told(DIGEST) is None  # one at a time
        piece = document[question.offset : question.offset + 100]
        question, effects = fetch.answered(Part(total=len(document), data=piece))
    assert asked == -(-len(document) // 100)
    assert [type(one) for one in effects] == [do.KeepRules]
    assert fetch.kept()
    assert fetch.kept() == []


@pytest.mark.parametrize(
    "answer",
    [
        Error(code="busy", detail=""),
        Part(total=5, data=b""),
        Part(total=1 << 30, data=b"x"),
        None,
    ],
)
def test_an_answer_that_leads_nowhere_is_asked_again_later(answer: object) -> None:
    fetch = RulesFetch(Rules())
    assert fetch.told(DIGEST)
    question, effects = fetch.answered(answer)
    assert question is None
    assert all(isinstance(one, do.Log) for one in effects)
    assert fetch.told(DIGEST)


def test_a_lost_session_ends_the_question() -> None:
    bench = make_bench()
    bench.answer_heartbeat(bench.later(5 * SECOND), rules=DIGEST)
    [request] = bench.requests(bench.done, GetPart)
    bench.post(on.SessionDown())
    document = encode(denies(MODEL))
    late = encode(Part(total=len(document), data=document))
    assert bench.of(do.KeepRules, bench.post(on.Answered(request.request, late))) == []
    bench.post(on.Failed(request.request, "peer_gone"))
    bench.register()
    tell(bench, denies(MODEL))
    assert refusals(bench, 1) == ["model_denied"]
    assert bench.now > NOW
