"""Turns are fair: no number of queued jobs makes another tenant wait for more than two quanta."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from assay_node.engine.turns import Turns

QUANTUM = 100


@dataclass(frozen=True, slots=True)
class Job:
    tenant: bytes
    cost: int
    number: int = 0


def _taken(turns: Turns[Job]) -> list[Job]:
    out = []
    while (job := turns.take(lambda _: True)) is not None:
        out.append(job)
    return out


def test_two_tenants_alternate_however_many_jobs_one_has() -> None:
    turns: Turns[Job] = Turns(QUANTUM)
    for number in range(5):
        turns.add(Job(b"a", QUANTUM, number))
    turns.add(Job(b"b", QUANTUM))
    assert [job.tenant for job in _taken(turns)] == [b"a", b"b", b"a", b"a", b"a", b"a"]


def test_a_tenant_of_small_jobs_gets_as_many_tokens_not_as_many_jobs() -> None:
    turns: Turns[Job] = Turns(QUANTUM)
    for number in range(20):
        turns.add(Job(b"small", 10, number))
        turns.add(Job(b"large", 100, number))
    first = [turns.take(lambda _: True) for _ in range(22)]
    spent = {
        name: sum(j.cost for j in first if j and j.tenant == name) for name in (b"small", b"large")
    }
    assert spent == {b"small": 200, b"large": 200}


def test_what_is_not_ready_is_passed_over_and_keeps_its_place() -> None:
    turns: Turns[Job] = Turns(QUANTUM)
    for number in (1, 2):
        turns.add(Job(b"a", 10, number))
    turns.add(Job(b"b", 10, 3))
    assert turns.take(lambda job: job.number != 1) == Job(b"a", 10, 2)
    assert turns.take(lambda job: job.number != 1) == Job(b"b", 10, 3)
    assert turns.take(lambda job: job.number != 1) is None
    assert turns.take(lambda _: True) == Job(b"a", 10, 1)
    assert turns.take(lambda _: True) is None


def test_removed_jobs_do_not_come() -> None:
    turns: Turns[Job] = Turns(QUANTUM)
    turns.add(Job(b"a", 10))
    turns.remove(Job(b"a", 10))
    assert len(turns) == 0
    assert turns.take(lambda _: True) is None


_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([b"a", b"b", b"c"]), st.integers(1, QUANTUM)),
        st.tuples(st.just("take"), st.just(b""), st.just(0)),
    ),
    max_size=120,
)


@given(_OPERATIONS)
def test_no_tenant_waits_while_another_spends_two_quanta(
    operations: list[tuple[str, bytes, int]],
) -> None:
    turns: Turns[Job] = Turns(QUANTUM)
    queued: dict[bytes, list[Job]] = {}
    # spent[waiter][other]: what the other was given since the waiter was last served or came
    spent: dict[bytes, dict[bytes, int]] = {}
    for number, (what, tenant, cost) in enumerate([*operations, *[("take", b"", 0)] * 120]):
        if what == "add":
            turns.add(Job(tenant, cost, number))
            if not queued.get(tenant):
                spent[tenant] = {}
            queued.setdefault(tenant, []).append(Job(tenant, cost, number))
            continue
        job = turns.take(lambda _: True)
        if job is None:
            assert not any(queued.values())
            continue
        assert job == queued[job.tenant].pop(0), "a tenant's own jobs go first come, first served"
        for waiter, others in spent.items():
            if queued[waiter] and waiter != job.tenant:
                others[job.tenant] = others.get(job.tenant, 0) + job.cost
                assert others[job.tenant] < 2 * QUANTUM
        spent[job.tenant] = {}
    assert not any(queued.values())
