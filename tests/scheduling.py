"""Jobs of all classes that come, are cancelled and end, planned for a model of the KV memory."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from assay_node.engine.batcher import PREEMPTIONS_MAX, Batcher
from assay_node.engine.interface import PRIORITIES
from assay_node.engine.plans import Feed, Plan
from kv_memory import KvMemory, owners_of

CONTEXT = 80
CHUNK = 8
TOTAL = 20
SLOTS = 3


@dataclass
class Asked:
    text: list[int]
    max_tokens: int
    untold: int = 0  # prompt tokens whose logits were asked for and not had yet
    drawn: int = 0


class Scheduling(RuleBasedStateMachine):
    """Jobs of all classes and two tenants that share beginnings; some states are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher = Batcher(
            slots=SLOTS, context=CONTEXT, chunk=CHUNK, total=TOTAL, waiting_max=999
        )
        self.memory = KvMemory(SLOTS, CONTEXT, tokens_max=90)
        self.jobs: dict[int, Asked] = {}
        self.number = 0

    @rule(
        priority=st.sampled_from(PRIORITIES),
        tenant=st.sampled_from([b"a", b"b"]),
        kind=st.integers(0, 2),
        length=st.integers(1, 60),
        max_tokens=st.integers(1, 20),
        shared=st.sampled_from([0, 0, 20]),
        asks=st.booleans(),
    )
    def submit(
        self,
        priority: int,
        tenant: bytes,
        kind: int,
        length: int,
        max_tokens: int,
        shared: int,
        asks: bool,
    ) -> None:
        self.number += 1
        text = [1000 * kind + i for i in range(length)]
        known = min(shared, length)
        self.batcher.submit(
            self.number,
            text,
            max_tokens,
            tenant=tenant,
            shared=known,
            priority=priority,
            asks=asks,
        )
        self.jobs[self.number] = Asked(text, max_tokens, length - 1 if asks else 0)

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0, 99))
    def cancel(self, which: int) -> None:
        job = sorted(self.jobs)[which % len(self.jobs)]
        assert self.batcher.cancel(job)
        self.memory.saved.pop(job, None)
        del self.jobs[job]

    @rule(steps=st.integers(1, 6), token=st.integers(0, 9))
    def step(self, steps: int, token: int) -> None:
        for _ in range(steps):
            self._step(token)

    def _decoded(self) -> tuple[Feed, ...]:
        """The next plan's feeds, after its moves and its decode."""
        plan = self.batcher.plan()
        assert plan.feeds or not self.jobs, "stuck"
        for job in self.memory.make(plan):
            self.batcher.saved(job)
        self.memory.decode(plan.feeds, owners_of(self.batcher))
        assert all(len(feed.tokens) <= CHUNK for feed in plan.feeds)
        return plan.feeds

    def _step(self, token: int) -> None:
        for feed in self._decoded():
            asked = self.jobs[feed.job]
            if feed.told:  # each token once, in order, however often the job was preempted
                length = len(asked.text) - asked.drawn
                assert feed.telling == length - 1 - asked.untold
                asked.untold -= feed.told
            if feed.draws:
                assert asked.untold == 0, "drawn before the prompt was told of"
                assert self.memory.tokens(feed.slot) == asked.text, "not where it stopped"
                asked.text.append(token)
                asked.drawn += 1
                over = self.batcher.drawn(feed.job, token, ends=token == 9) is not None
                assert over == (token == 9 or asked.drawn == asked.max_tokens)
                if over:
                    del self.jobs[feed.job]

    @invariant()
    def nothing_is_kept_of_who_is_gone(self) -> None:
        assert set(self.memory.saved) <= set(self.jobs)
        assert self.batcher.running + self.batcher.waiting == len(self.jobs)
        assert self.batcher.running <= SLOTS

    def teardown(self) -> None:
        for _ in range((CONTEXT + 20) * (1 + PREEMPTIONS_MAX) * (1 + len(self.jobs))):
            if not self.jobs:
                break
            self._step(1)
        assert not self.jobs, "a job waits for ever"
        assert not self.memory.saved
        assert self.batcher.plan() == Plan()
