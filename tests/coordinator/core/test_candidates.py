"""Auditors are chosen independent of the executor, and not for their class (decision 0005)."""

from __future__ import annotations

from assay_coordinator.core.candidates import Candidates
from assay_coordinator.core.cases import Case
from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.jobs import Job
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node, Registry
from assay_protocol.messages import Offer, Register, Ticket
from assay_protocol.signing import Identity, seal
from coordinator.core.finding_cases import leaves, plain, receipt
from protocol_cases import make_ticket

POLICY = Policy()
EXECUTOR, MODEL = make_ticket().node, make_ticket().model
CLASSES = ("own/E", "own/E", "own/E", "other/F", "third/F")
SIGNER = Identity(b"\x05" * 32)


def network() -> Registry:
    """The executor, and auditors of which most share the class it has invented."""
    registry = Registry(POLICY)
    for i, class_id in enumerate(("own/E", *CLASSES)):
        key = EXECUTOR if i == 0 else bytes([100 + i]) * 32
        offer = Offer(
            model=MODEL, class_id=class_id, slots=1, context=512, prefill_rate=1, decode_rate=1
        )
        joined = Register(operator=key, offers=(offer,), addresses=("a",), software="s", device="d")
        registry.register(0, key, joined, 10**12)
    return registry


def case(**changes: object) -> Case:
    ticket: Ticket = make_ticket()
    blob = seal(SIGNER, receipt(leaves(), "own/E"))
    made = Case(Job(ticket, b"", "drawn", 0, 0, receipt_blob=blob), 10**12, 96, None)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def names(nodes: list[Node]) -> set[str]:
    return {node.classes[MODEL] for node in nodes}


def test_the_first_auditor_is_never_chosen_for_its_class() -> None:
    candidates = Candidates(POLICY, network(), Entropy(bytes(32)))
    for inquiry in (False, True):
        assert names(candidates.free(0, case(inquiry=inquiry))) == set(CLASSES)


def test_after_a_difference_of_bits_one_more_of_the_class_is_asked_once() -> None:
    candidates = Candidates(POLICY, network(), Entropy(bytes(32)))
    doubted = case(findings=[plain(1, equal=False)])
    assert names(candidates.free(0, doubted)) == {"own/E"}
    assert doubted.by_class
    assert names(candidates.free(0, doubted)) == set(CLASSES), "but not a third by choice"
    refuted = case(findings=[plain(1, equal=False), plain(2, equal=True)])
    assert names(candidates.free(0, refuted)) == set(CLASSES)


def test_an_inquiry_wants_one_of_the_class_after_the_first() -> None:
    candidates = Candidates(POLICY, network(), Entropy(bytes(32)))
    asked = case(inquiry=True, findings=[plain(1)])
    assert names(candidates.free(0, asked)) == {"own/E"}
    shared = case(inquiry=True, findings=[plain(1, equal=True)])
    assert names(candidates.free(0, shared)) == set(CLASSES)
    usual = case(findings=[plain(1)])
    assert names(candidates.free(0, usual)) == set(CLASSES)


def test_where_nobody_shares_the_class_anybody_will_do() -> None:
    registry = network()
    for node in registry.nodes.values():
        if node.key != EXECUTOR and node.classes[MODEL] == "own/E":
            registry.leave(node)
    candidates = Candidates(POLICY, registry, Entropy(bytes(32)))
    doubted = case(findings=[plain(1, equal=False)])
    assert names(candidates.free(0, doubted)) == {"other/F", "third/F"}
    assert not doubted.by_class


def test_barred_auditors_and_closed_nodes_are_not_asked() -> None:
    registry = network()
    others = [node for node in registry.nodes.values() if node.key != EXECUTOR]
    registry.update(others[0], outvoted=POLICY.outvoted_max)
    for node, state in zip(others[1:], ("inquiry", "suspended", "convicted"), strict=False):
        registry.update(node, state=state)
    candidates = Candidates(POLICY, registry, Entropy(bytes(32)))
    assert candidates.free(0, case()) == [others[4]]


def test_since_when_nobody_is_left_is_remembered() -> None:
    registry = network()
    alone = case()
    everyone = set(registry.nodes)
    alone.asked = everyone
    candidates = Candidates(POLICY, registry, Entropy(bytes(32)))
    assert candidates.free(7, alone) == []
    assert candidates.free(9, alone) == []
    assert alone.alone_since == 7
    alone.asked = set()
    assert candidates.free(11, alone)
    assert alone.alone_since == 0
