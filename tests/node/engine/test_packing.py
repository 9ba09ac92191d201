"""Texts to batches: whole, bounded, in fair turns, and none left behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.engine.packing import TEXTS_MAX, TOGETHER, Packer
from assay_protocol.errors import AssayError

LONGEST, WAITING_MAX = 100, 40


def _packer() -> Packer:
    return Packer(longest=LONGEST, together=TOGETHER, waiting_max=WAITING_MAX)


def _submit(packer: Packer, *texts: tuple[int, bytes, int]) -> None:
    for job, tenant, tokens in texts:
        packer.submit(job, tenant, tokens)


def test_short_texts_go_together_and_long_ones_alone() -> None:
    packer = _packer()
    _submit(packer, (1, b"a", 20), (2, b"a", 43), (3, b"a", 1), (4, b"a", 100), (5, b"a", 5))
    assert [packer.plan() for _ in range(5)] == [(1, 2), (3,), (4,), (5,), ()]


def test_no_shorter_text_passes_one_that_did_not_fit() -> None:
    packer = _packer()
    _submit(packer, (1, b"a", 40), (2, b"a", 30), (3, b"a", 10))
    assert [packer.plan() for _ in range(2)] == [(1,), (2, 3)]


def test_a_batch_has_a_bounded_number_of_texts() -> None:
    packer = Packer(longest=LONGEST, together=10 * TEXTS_MAX, waiting_max=2 * TEXTS_MAX)
    _submit(packer, *((job, b"a", 1) for job in range(TEXTS_MAX + 3)))
    assert [len(packer.plan()) for _ in range(2)] == [TEXTS_MAX, 3]


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    packer = _packer()
    _submit(packer, *((job, b"a", 60) for job in range(WAITING_MAX)))
    with pytest.raises(AssayError) as caught:
        packer.submit(WAITING_MAX, b"b", 1)
    assert caught.value.code == "busy"
    assert sum(len(packer.plan()) for _ in range(WAITING_MAX)) == WAITING_MAX


def test_a_text_kept_for_the_next_batch_can_be_cancelled() -> None:
    packer = _packer()
    _submit(packer, (1, b"a", 40), (2, b"a", 30), (3, b"a", 10))
    assert packer.plan() == (1,)
    packer.cancel(2)
    packer.cancel(2)
    assert len(packer) == 1
    assert packer.plan() == (3,)


_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from([b"a", b"b", b"c"]), st.integers(1, LONGEST)),
        st.tuples(st.just("plan"), st.just(b""), st.just(0)),
        st.tuples(st.just("cancel"), st.just(b""), st.integers(0, 60)),
    ),
    max_size=120,
)


@given(_OPERATIONS)
def test_every_text_is_computed_once_or_was_cancelled(
    operations: list[tuple[str, bytes, int]],
) -> None:
    packer = _packer()
    waiting: dict[int, int] = {}
    for job, (what, tenant, number) in enumerate([*operations, *[("plan", b"", 0)] * 120]):
        if what == "submit" and len(waiting) < WAITING_MAX:
            packer.submit(job, tenant, number)
            waiting[job] = number
        elif what == "cancel":
            packer.cancel(number)
            waiting.pop(number, None)
        elif what == "plan":
            batch = packer.plan()
            assert bool(batch) == bool(waiting)
            tokens = [waiting.pop(job) for job in batch]
            assert len(batch) <= 1 or sum(tokens) <= TOGETHER
        assert len(packer) == len(waiting)
    assert not waiting


@given(_OPERATIONS)
def test_no_tenant_waits_while_another_spends_two_quanta_and_a_batch(
    operations: list[tuple[str, bytes, int]],
) -> None:
    packer = _packer()
    queued: dict[bytes, dict[int, int]] = {b"a": {}, b"b": {}, b"c": {}}
    spent: dict[bytes, dict[bytes, int]] = {}
    for job, (what, tenant, number) in enumerate([*operations, *[("plan", b"", 0)] * 120]):
        if what == "submit" and len(packer) < WAITING_MAX:
            packer.submit(job, tenant, number)
            if not queued[tenant]:
                spent[tenant] = {}
            queued[tenant][job] = number
        for done in packer.plan() if what == "plan" else ():
            owner = next(name for name, jobs in queued.items() if done in jobs)
            assert done == min(queued[owner]), "a tenant's own texts go first come, first served"
            tokens = queued[owner].pop(done)
            for waiter, others in spent.items():
                if queued[waiter] and waiter != owner:
                    others[owner] = others.get(owner, 0) + tokens
                    assert others[owner] < 2 * LONGEST + TOGETHER
            spent[owner] = {}
    assert not any(queued.values())
