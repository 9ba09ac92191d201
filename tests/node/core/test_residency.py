"""What is loaded when, who begins and who waits: single stories, then anything that can happen."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from assay_node.core.parameters import SECOND_US, Parameters
from assay_node.core.residency import Begin, Close, Footprint, Open, Refuse, Residency, Step

A, B, C = (letter * 32 for letter in (b"a", b"b", b"c"))
BOUNDS = Parameters()
WAIT, STAY = BOUNDS.load_wait_us, BOUNDS.residence_us
LOAD = SECOND_US


def residency(budget: int = 10, resident: tuple[bytes, ...] = (A,), **needs: int) -> Residency:
    sizes = {A: 6, B: 6} | {name.encode() * 32: need for name, need in needs.items()}
    engines = {key: Footprint(need, 2, LOAD) for key, need in sizes.items()}
    return Residency(engines, BOUNDS, budget_bytes=budget, resident=resident)


def job(machine: Residency, now: int, key: int, engine: bytes) -> list[Step]:
    return machine.want(now, key, engine, is_job=True)


def test_a_job_of_a_loaded_model_begins_at_once() -> None:
    assert job(residency(), 0, 1, A) == [Begin(1)]


def test_where_both_fit_the_other_is_loaded_and_nothing_is_evicted() -> None:
    machine = residency(budget=12)
    assert job(machine, 0, 1, B) == [Open(B)]
    assert machine.opened(LOAD, B) == [Begin(1)]
    assert (machine.state(A), machine.state(B)) == ("resident", "resident")


def test_the_idle_one_makes_room() -> None:
    machine = residency()
    assert job(machine, 0, 1, B) == [Close(A)]
    assert machine.closed(10, A) == [Open(B)]
    assert machine.opened(LOAD, B) == [Begin(1)]


def test_the_least_recently_used_one_is_evicted() -> None:
    machine = residency(budget=18, resident=(A, B, C), c=6, d=6)
    for key, engine in enumerate((B, A, C)):
        assert job(machine, 10 * key, key, engine) == [Begin(key)]
        assert machine.ended(10 * key + 1, key) == []
    assert job(machine, 100, 9, b"d" * 32) == [Close(B)]


def test_running_jobs_are_never_evicted_and_a_busy_model_keeps_nobody_out() -> None:
    machine = residency()
    job(machine, 0, 1, A)
    assert job(machine, 1, 2, B) == []
    assert job(machine, 2, 3, A) == [], "it makes room for B first"
    assert machine.ended(3, 1) == [Close(A)]
    assert machine.closed(4, A) == [Open(B)]
    assert machine.opened(4 + LOAD, B) == [Begin(2)]
    assert machine.ended(5 + LOAD, 2) == [], "B has its time now"
    assert machine.tick(5 + LOAD + STAY) == [Close(B)]
    machine.closed(6 + LOAD + STAY, B)
    assert machine.opened(6 + 2 * LOAD + STAY, A) == [Begin(3)]


def test_models_that_take_turns_do_not_thrash() -> None:
    """A client of each asks again as soon as it was answered or refused, for ten minutes."""
    machine, loads = residency(), 0
    for second in range(600):
        now = second * SECOND_US
        steps: list[Step] = machine.tick(now)
        for number, engine in enumerate((A, B)):
            steps += machine.ended(now, 2 * second + number - 2)
            steps += job(machine, now, 2 * second + number, engine)
        for step in steps:
            if isinstance(step, Close):
                steps += machine.closed(now, step.engine)
            if isinstance(step, Open):
                loads += 1
                machine.opened(now + LOAD, step.engine)
    assert 20 < loads <= 600 * SECOND_US // STAY


def test_a_model_that_loads_slowly_stays_eight_times_as_long() -> None:
    machine = residency()
    job(machine, 0, 1, B)
    machine.closed(0, A)
    slow = 2 * SECOND_US
    machine.opened(slow, B)
    machine.ended(slow, 1)
    assert job(machine, slow, 2, A) == []
    assert machine.tick(slow + 8 * slow - 1) == []
    assert machine.tick(slow + 8 * slow) == [Close(B)]


def test_a_wait_that_would_be_too_long_is_refused_at_once_and_the_ask_stands() -> None:
    slow = {A: Footprint(6, 2, 60 * SECOND_US), B: Footprint(6, 2, 60 * SECOND_US)}
    machine = Residency(slow, BOUNDS, budget_bytes=10, resident=(A,))
    steps = job(machine, 0, 1, B)
    assert [type(step) for step in steps] == [Close, Refuse]
    assert steps[1] == Refuse(1, "busy", 120_000 + 480_000 - 540_000)
    assert machine.closed(1, A) == [Open(B)], "so that it is there when the client comes back"
    assert machine.opened(60 * SECOND_US, B) == []
    assert job(machine, 61 * SECOND_US, 2, B) == [Begin(2)]


def test_a_wait_has_an_end() -> None:
    machine = residency()
    job(machine, 0, 1, A)
    job(machine, 0, 2, B)
    assert machine.tick(WAIT - 1) == []
    [refused] = machine.tick(WAIT)
    assert isinstance(refused, Refuse)
    assert (refused.key, refused.code) == (2, "busy")
    assert refused.retry_after_ms >= LOAD // 1000
    assert machine.ended(WAIT + 1, 1) == [Close(A)], "the ask stands"


def test_an_ask_nobody_repeats_is_dropped() -> None:
    machine = residency()
    job(machine, 0, 1, A)
    job(machine, 0, 2, B)
    machine.tick(WAIT)
    machine.tick(BOUNDS.ask_kept_us)
    assert machine.ended(BOUNDS.ask_kept_us + 1, 1) == []


def test_a_model_that_cannot_be_loaded_fails_its_jobs_rests_and_leaves_the_others_alone() -> None:
    machine = residency(budget=12)
    job(machine, 0, 1, B)
    assert machine.failed(5, B) == [Refuse(1, "engine_failed")]
    assert job(machine, 6, 2, A) == [Begin(2)]
    [refused] = job(machine, 7, 3, B)
    assert isinstance(refused, Refuse)
    assert refused.code == "engine_failed"
    rested = 5 + BOUNDS.rest_us
    machine.tick(rested)
    assert job(machine, rested, 4, B) == [Open(B)]
    machine.failed(rested + 1, B)
    machine.tick(rested + 1 + BOUNDS.rest_us)
    assert machine.state(B) == "resting", "longer the second time"


def test_slots_are_shared_and_models_take_turns() -> None:
    machine = residency(budget=12, resident=(A, B))
    assert job(machine, 0, 1, A) + job(machine, 0, 2, A) == [Begin(1), Begin(2)]
    assert [job(machine, 0, key, A) for key in (3, 4)] == [[], []]
    assert job(machine, 0, 5, B) == []
    assert machine.ended(1, 1) == [Begin(5)], "not behind all that A has queued"
    assert machine.ended(2, 2) == [Begin(3)]


def test_a_model_begins_no_more_than_its_own_slots() -> None:
    sizes = {A: Footprint(1, 4), B: Footprint(1, 1)}
    machine = Residency(sizes, BOUNDS, budget_bytes=9, resident=(A, B))
    assert job(machine, 0, 1, B) == [Begin(1)]
    assert job(machine, 0, 2, B) == []
    assert job(machine, 0, 3, A) == [Begin(3)]
    assert machine.ended(1, 1) == [Begin(2)]


def test_a_node_of_one_model_leaves_the_queue_to_its_engine() -> None:
    machine = Residency({A: Footprint(6, 2)}, BOUNDS, budget_bytes=6, resident=(A,))
    assert [job(machine, 0, key, A) for key in range(9)] == [[Begin(key)] for key in range(9)]


def test_replays_take_no_slot_but_keep_the_engine() -> None:
    machine = residency()
    for key in (1, 2):
        job(machine, 0, key, A)
    assert machine.want(0, b"audit", A, is_job=False) == [Begin(b"audit")]
    machine.ended(1, 1)
    assert job(machine, 1, 3, B) == []
    assert machine.ended(2, 2) == []
    assert machine.ended(3, b"audit") == [Close(A)]


_SHAPES = ((5, 2), (4, 3), (3, 1), (9, 2))
ENGINES = {bytes([n]) * 32: Footprint(*shape) for n, shape in enumerate(_SHAPES)}
BUDGET = 10


class Machine(RuleBasedStateMachine):
    """Engines that open, fail and close at any time, jobs that come and end at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = Parameters(load_wait_us=20, residence_us=10, ask_kept_us=60, rest_us=15)
        self.residency = Residency(ENGINES, self.bounds, budget_bytes=BUDGET, resident=())
        self.now, self.last = 0, 0
        self.doing: dict[bytes, str] = {}  # engines on their way
        self.loaded: dict[bytes, int] = {}  # and since when
        self.running: dict[Any, bytes] = {}
        self.waiting: dict[Any, tuple[bytes, int]] = {}
        self.free_since: dict[Any, int] = {}

    def carry_out(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case Open(engine):
                    assert engine not in self.loaded
                    assert engine not in self.doing
                    self.doing[engine] = "open"
                case Close(engine):
                    assert engine not in self.running.values(), "what runs is never evicted"
                    assert self.now >= self.loaded.pop(engine) + self.bounds.residence_us
                    self.doing[engine] = "close"
                case Begin(key):
                    engine, _ = self.waiting.pop(key)
                    assert engine in self.loaded
                    self.running[key] = engine
                case Refuse(key):
                    del self.waiting[key]

    @rule(engine=st.sampled_from(sorted(ENGINES)), is_job=st.booleans())
    def want(self, engine: bytes, is_job: bool) -> None:
        self.last += 1
        key = self.last if is_job else self.last.to_bytes(2, "big")
        self.waiting[key] = (engine, self.now)
        self.carry_out(self.residency.want(self.now, key, engine, is_job=is_job))

    @precondition(lambda self: self.doing)
    @rule(data=st.data(), fails=st.booleans())
    def arrive(self, data: st.DataObject, fails: bool) -> None:
        engine = data.draw(st.sampled_from(sorted(self.doing)))
        if self.doing.pop(engine) == "close":
            self.carry_out(self.residency.closed(self.now, engine))
        elif fails:
            self.carry_out(self.residency.failed(self.now, engine))
        else:
            self.loaded[engine] = self.now
            self.carry_out(self.residency.opened(self.now, engine))

    @precondition(lambda self: self.running or self.waiting)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        keys = sorted([*self.running, *self.waiting], key=repr)
        key = data.draw(st.sampled_from(keys))
        self.running.pop(key, None)
        self.waiting.pop(key, None)
        self.carry_out(self.residency.ended(self.now, key))

    @rule(later=st.integers(0, 25))
    def tick(self, later: int) -> None:
        self.now += later
        self.carry_out(self.residency.tick(self.now))

    @invariant()
    def memory_and_slots_are_kept(self) -> None:
        assert sum(ENGINES[one].need_bytes for one in (*self.loaded, *self.doing)) <= BUDGET
        jobs = [engine for key, engine in self.running.items() if isinstance(key, int)]
        assert len(jobs) <= max(one.slots for one in ENGINES.values())
        assert all(jobs.count(engine) <= one.slots for engine, one in ENGINES.items())

    @invariant()
    def a_slot_is_not_left_free_while_somebody_waits_for_it(self) -> None:
        jobs = [engine for key, engine in self.running.items() if isinstance(key, int)]
        for key, (engine, _) in self.waiting.items():
            full = len(jobs) == 3 or jobs.count(engine) == ENGINES[engine].slots
            settled = engine in self.loaded and self.residency.wait_us(self.now, engine) == 0
            assert not settled or (full and isinstance(key, int))

    def teardown(self) -> None:
        """Whoever waits begins or is told, once what runs ends and loads arrive."""
        for _ in range(200):
            for engine in sorted(self.doing):
                if self.doing.pop(engine) == "close":
                    self.carry_out(self.residency.closed(self.now, engine))
                else:
                    self.loaded[engine] = self.now
                    self.carry_out(self.residency.opened(self.now, engine))
            for key in sorted(self.running, key=repr):
                del self.running[key]
                self.carry_out(self.residency.ended(self.now, key))
            self.now += 5
            self.carry_out(self.residency.tick(self.now))
        assert not self.waiting
        assert not self.running


Machine.TestCase.settings = settings(stateful_step_count=40)
TestResidency = Machine.TestCase
