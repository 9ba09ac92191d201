"""A node of several models, whatever happens in whatever order: no job is lost or left behind."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.parameters import Parameters
from assay_protocol.errors import RemoteError
from node.core.node_bench import END, SECOND, SERVED, Bench, Client, make_bench, make_ticket

MODELS = [bytes([n]) * 32 for n in range(3)]
ADAPTED = b"x" * 32
NEEDS = (6, 5, 3)
BUDGET = 9


def several() -> Bench:
    plain = [
        replace(SERVED, model=model, need_bytes=need)
        for model, need in zip(MODELS, NEEDS, strict=True)
    ]
    styled = replace(plain[0], model=ADAPTED, base=MODELS[0], adapter=b"l" * 32)
    bounds = Parameters(queue_max=1, rest_us=20 * SECOND)
    return make_bench(
        served=(*plain, styled), parameters=bounds, budget_bytes=BUDGET, resident=(MODELS[0],)
    )


class Machine(RuleBasedStateMachine):
    """Clients come and go; engines open, fail and close when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.bench, self.seen, self.last = several(), 0, 0
        self.loaded, self.opening, self.closing = {MODELS[0]}, set[bytes](), set[bytes]()
        self.clients: dict[int, Client] = {}
        self.asked: dict[int, bytes] = {}  # models by stream
        self.begun: dict[int, bytes] = {}

    def look(self) -> None:
        """What the node has done since the last look, checked against what is loaded."""
        for effect in self.bench.done[self.seen :]:
            match effect:
                case do.OpenEngine(engine):
                    assert engine not in self.loaded | self.opening | self.closing
                    self.opening.add(engine)
                case do.CloseEngine(engine):
                    assert engine not in self.begun.values(), "what runs is never evicted"
                    self.loaded.remove(engine)
                    self.closing.add(engine)
                case do.StartGenerate(stream, generate, engine):
                    assert engine in self.loaded
                    assert (generate.adapter is None) == (engine == self.asked[stream])
                    self.begun[stream] = engine
                case do.StopGenerate(stream) | do.CloseStream(stream):
                    self.begun.pop(stream, None)
        self.seen = len(self.bench.done)
        for stream in set(self.clients) - set(self.bench.node._jobs):
            self.clients.pop(stream, None)
            self.begun.pop(stream, None)

    @rule(model=st.sampled_from([*MODELS, ADAPTED]))
    def come(self, model: bytes) -> None:
        self.last += 1
        self.asked[self.last] = model
        ticket = make_ticket(self.last, model=model, expires_at=1 << 62)
        told = []
        try:
            self.clients[self.last] = self.bench.start(self.last, ticket)
        except RemoteError as error:
            told.append(error.code)
        assert set(told) <= {"busy", "engine_failed"}
        self.look()

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), ends=st.booleans())
    def draw(self, data: st.DataObject, ends: bool) -> None:
        stream = data.draw(st.sampled_from(sorted(self.begun)))
        client = self.clients[stream]
        if ends or len(client.end.tokens) >= 5:
            self.begun.pop(stream)
            client.draw(END, finish="stop")
            client.reply()
        else:
            client.draw(7)
        self.look()

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.clients)))
        self.begun.pop(stream, None)
        self.bench.post(on.StreamLost(stream))
        self.look()

    @precondition(lambda self: self.opening or self.closing)
    @rule(data=st.data(), fails=st.booleans())
    def arrive(self, data: st.DataObject, fails: bool) -> None:
        engine = data.draw(st.sampled_from(sorted(self.opening | self.closing)))
        if engine in self.closing:
            self.closing.remove(engine)
            self.bench.post(on.EngineClosed(engine))
        elif fails:
            self.opening.remove(engine)
            self.bench.post(on.EngineNotOpened(engine))
        else:
            self.opening.remove(engine)
            self.loaded.add(engine)
            self.bench.post(on.EngineOpened(engine))
        self.look()

    @rule(seconds=st.sampled_from((0, 1, 5, 12, 30)))
    def wait(self, seconds: int) -> None:
        self.bench.later(seconds * SECOND)
        self.look()

    @invariant()
    def memory_and_slots_are_kept(self) -> None:
        sizes = dict(zip(MODELS, NEEDS, strict=True))
        held = self.loaded | self.opening | self.closing
        assert sum(sizes[engine] for engine in held) <= BUDGET
        assert len(self.begun) <= SERVED.slots

    @invariant()
    def the_residency_holds_exactly_the_nodes_jobs(self) -> None:
        engines = self.bench.node.residency._engines.values()
        held = {key for one in engines for key in one.running}
        queued = {waiting.key for one in engines for waiting in one.waiting}
        running = {stream for stream, job in self.bench.node._jobs.items() if job.running}
        assert held | queued == running
        assert held == set(self.begun)

    def teardown(self) -> None:
        for stream in tuple(self.clients):
            self.bench.post(on.StreamLost(stream))
        assert self.bench.node.running == 0
        assert not any(one.running for one in self.bench.node.residency._engines.values())


Machine.TestCase.settings = settings(stateful_step_count=40)
TestSeveralModels = Machine.TestCase
