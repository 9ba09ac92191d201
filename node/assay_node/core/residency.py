"""Which engines are loaded, and which jobs may begin: memory and slots are shared by all models.

    absent --asked for, room--> opening --> resident --asked out, idle--> closing --> absent
                                   \\--failed--> resting --after a while--> absent

An engine is loaded when a job or a replay asks for it. Where the memory budget does not hold all,
it takes the room of those that were used least recently, the idle first. Rules:

- What runs is never evicted. A busy engine that has to go begins nothing more and is closed when
  what it runs has ended; so a busy model cannot keep another one out for ever.
- Whoever was loaded stays for a while (`residence_us`, and eight times what loading took), so two
  models that take turns spend at most a ninth of the time on loading.
- Asks are served oldest first; nobody overtakes one for which room is being made.
- A job waits for its engine `load_wait_us` at most, or is refused at once if that is foreseen, as
  `busy` with the time the engine should take. The ask stands for a while, for when it comes back.
- An engine that cannot be loaded rests, each time longer; its jobs fail, the others go on.
- Of several engines, each begins at most its own slots of jobs, and all together the most that any
  has; they take turns. One alone gets every job at once: its own queue is fairer. Replays take no
  slot.

The caller bounds how many ask (Admission, Parameters.audits_max). Microseconds and bytes. B1, P1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from assay_node.core.parameters import Parameters, Served

RESIDENCE_LOADS: Final = 8  # loading takes at most one part in so many, and one

Key = int | bytes  # a job's stream, or an audit
State = Literal["absent", "opening", "resident", "closing", "resting"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an engine takes: memory while it is loaded, and how long loading took last."""

    need_bytes: int
    slots: int
    load_us: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    """Load this engine; report `opened` or `failed`."""

    engine: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Unload this engine, with which nothing runs; report `closed`."""

    engine: bytes


@dataclass(frozen=True, slots=True)
class Begin:
    """The engine is loaded and has room: begin, and report `ended`."""

    key: Key


@dataclass(frozen=True, slots=True)
class Refuse:
    """It will not begin: `code` is busy or engine_failed."""

    key: Key
    code: str
    retry_after_ms: int = 0


Step = Open | Close | Begin | Refuse


@dataclass(slots=True)
class _Waiting:
    key: Key
    is_job: bool
    since: int


@dataclass(slots=True)
class _Engine:
    footprint: Footprint
    load_us: int
    state: State = "absent"
    since: int = 0  # it is in that state
    stays_until: int = 0
    used_at: int = 0
    asked_at: int | None = None  # the first ask for it while it was absent
    last_asked_at: int = 0
    failures: int = 0  # in a row
    leaving: bool = False  # begins nothing more
    waiting: list[_Waiting] = field(default_factory=list)
    running: dict[Key, bool] = field(default_factory=dict)  # whether it is a job

    @property
    def jobs(self) -> int:
        return sum(self.running.values())

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    @property
    def wanted(self) -> bool:
        """Whether a plan could change anything about it."""
        return bool(self.waiting) or self.leaving or self.asked_at is not None

    @property
    def settled(self) -> bool:
        """Loaded, and to stay so."""
        return self.state == "resident" and not self.leaving

    def become(self, state: State, now: int) -> None:
        self.state, self.since = state, now


class Residency:
    """All engines of one node. Every method returns what is to be done, in order."""

    __slots__ = ("_budget", "_engines", "_order", "_parameters", "_slots")

    def __init__(
        self,
        engines: Mapping[bytes, Footprint],
        parameters: Parameters,
        *,
        budget_bytes: int | None = None,
        resident: Iterable[bytes] | None = None,
    ) -> None:
        """`resident` are loaded already, the most needed last; None: all. Each engine must fit the
        budget alone; None: all fit."""
        needs = [one.need_bytes for one in engines.values()]
        self._budget = sum(needs) if budget_bytes is None else budget_bytes
        self._parameters = parameters
        self._engines = {key: _Engine(one, one.load_us) for key, one in engines.items()}
        self._slots = max(one.slots for one in engines.values())
        self._order = list(engines)  # whose turn is next comes first
        for number, key in enumerate(engines if resident is None else resident, 1):
            self._engines[key].become("resident", 0)
            self._engines[key].used_at = number
        assert max(needs) <= self._budget, "each can be loaded"
        assert self._taken() <= self._budget, "what is loaded fits"

    def state(self, engine: bytes) -> State:
        return self._engines[engine].state

    @property
    def all_well(self) -> bool:
        """Whether no engine rests."""
        return all(one.state != "resting" for one in self._engines.values())

    def want(self, now: int, key: Key, engine: bytes, *, is_job: bool) -> list[Step]:
        """A job or a replay would begin; one Begin or Refuse answers, now or later."""
        one = self._engines[engine]
        if one.state == "resting":
            return [Refuse(key, "engine_failed", _ms(self.wait_us(now, engine)))]
        self._ask(now, one)
        steps = self._plan(now)
        if (wait := self.wait_us(now, engine)) > self._parameters.load_wait_us:
            return [*steps, Refuse(key, "busy", _ms(wait))]
        one.waiting.append(_Waiting(key, is_job, now))
        return steps + self._plan(now)

    def ended(self, now: int, key: Key) -> list[Step]:
        """What began is over, or what waits is given up; another key does nothing."""
        for one in self._engines.values():
            if one.running.pop(key, None) is not None:
                one.used_at = now
            one.waiting = [waiting for waiting in one.waiting if waiting.key != key]
        return self._plan(now)

    def opened(self, now: int, engine: bytes) -> list[Step]:
        one = self._engines[engine]
        assert one.state == "opening"
        one.load_us = now - one.since
        one.become("resident", now)
        one.used_at, one.asked_at, one.failures = now, None, 0
        one.stays_until = now + self._residence_us(one)
        return self._plan(now)

    def failed(self, now: int, engine: bytes) -> list[Step]:
        """It cannot be loaded: whoever waits for it is told."""
        one = self._engines[engine]
        assert one.state == "opening"
        one.become("resting", now)
        one.failures += 1
        one.asked_at = None
        told: list[Step] = [Refuse(waiting.key, "engine_failed") for waiting in one.waiting]
        one.waiting = []
        return told + self._plan(now)

    def closed(self, now: int, engine: bytes) -> list[Step]:
        one = self._engines[engine]
        assert one.state == "closing"
        one.become("absent", now)
        for waiting in one.waiting:
            waiting.since = now
        if one.waiting:
            self._ask(now, one)
        return self._plan(now)

    @property
    def calm(self) -> bool:
        """Whether time alone changes nothing: all engines are there, and nobody waits for one."""
        return all(one.settled and one.asked_at is None for one in self._engines.values())

    def tick(self, now: int) -> list[Step]:
        """Time passed: rests end, waits end, asks nobody repeated are dropped."""
        steps: list[Step] = []
        bounds = self._parameters
        for engine, one in self._engines.items():
            if one.state == "resting" and now >= one.since + self._rest_us(one):
                one.become("absent", now)
            if one.settled:
                continue  # they wait for a slot, which no load delays
            late = [w for w in one.waiting if now >= w.since + bounds.load_wait_us]
            one.waiting = [w for w in one.waiting if now < w.since + bounds.load_wait_us]
            wait_ms = _ms(self.wait_us(now, engine))
            steps += [Refuse(waiting.key, "busy", wait_ms) for waiting in late]
            if not one.waiting and now >= one.last_asked_at + bounds.ask_kept_us:
                one.asked_at = None
        return steps + self._plan(now)

    def wait_us(self, now: int, engine: bytes) -> int:
        """How long until a job for it could begin, slots aside: an estimate; 0 if it is loaded."""
        one = self._engines[engine]
        if one.settled:
            return 0
        match one.state:
            case "opening":
                return max(1, one.since + one.load_us - now)
            case "resting":
                return max(1, one.since + self._rest_us(one) - now)
            case "absent":
                return one.load_us + self._room_us(now, one)
        return one.load_us + self._residence_us(one)  # it makes room for another one, whose time

    def _room_us(self, now: int, one: _Engine) -> int:
        """Until enough of the others may be asked out; what they run then still has to end."""
        free = self._budget - self._taken() + self._closing()
        lacking = one.footprint.need_bytes - free
        wait = 0
        for stays_until, need in sorted(
            (other.stays_until, other.footprint.need_bytes)
            for other in self._engines.values()
            if other.state in ("resident", "opening")
        ):
            if lacking > 0:
                lacking, wait = lacking - need, max(0, stays_until - now)
        return wait

    def _ask(self, now: int, one: _Engine) -> None:
        one.last_asked_at = now
        if one.asked_at is None and one.state != "resident":
            one.asked_at = now

    def _plan(self, now: int) -> list[Step]:
        for one in self._engines.values():
            if one.wanted:
                return self._make_room(now) + self._begin(now)
        return []  # as after nearly every tick

    def _make_room(self, now: int) -> list[Step]:
        """Serve the asks, oldest first, up to the first one that has to wait for room."""
        steps: list[Step] = []
        for one in self._engines.values():
            one.leaving = False
        asks = [
            (one.asked_at, key)
            for key, one in self._engines.items()
            if one.state == "absent" and one.asked_at is not None
        ]
        for _, key in sorted(asks):
            wanted = self._engines[key]
            lacking = wanted.footprint.need_bytes - (self._budget - self._taken())
            if lacking > 0:
                return steps + self._ask_out(now, lacking)
            wanted.become("opening", now)
            wanted.stays_until = now + wanted.load_us + self._residence_us(wanted)
            steps.append(Open(key))
        return steps

    def _ask_out(self, now: int, lacking: int) -> list[Step]:
        """Close what is idle, and let nothing more begin with what is not; no more than needed."""
        lacking -= self._closing()
        may_go = [
            (not one.idle, one.used_at, key)
            for key, one in self._engines.items()
            if one.state == "resident" and now >= one.stays_until
        ]
        chosen: list[bytes] = []
        for _, _, key in sorted(may_go):
            if lacking <= 0:
                break
            chosen.append(key)
            lacking -= self._engines[key].footprint.need_bytes
        if lacking > 0:
            return []  # not yet: the others have not had their time
        steps: list[Step] = []
        for key in chosen:
            one = self._engines[key]
            one.leaving = True
            if not one.running:
                one.become("closing", now)
                steps.append(Close(key))
        return steps

    def _begin(self, now: int) -> list[Step]:
        """Let engines in turn begin what waits, while there are slots."""
        steps: list[Step] = []
        going = True
        while going:
            going = False
            for key in tuple(self._order):
                one = self._engines[key]
                if one.state != "resident" or one.leaving:
                    continue
                if (waiting := self._next(one)) is None:
                    continue
                one.waiting.remove(waiting)
                one.running[waiting.key], one.used_at = waiting.is_job, now
                steps.append(Begin(waiting.key))
                if waiting.is_job:
                    self._order.remove(key)
                    self._order.append(key)
                going = True
        return steps

    def _next(self, one: _Engine) -> _Waiting | None:
        room = len(self._engines) == 1 or (
            one.jobs < one.footprint.slots
            and sum(other.jobs for other in self._engines.values()) < self._slots
        )
        return next((w for w in one.waiting if room or not w.is_job), None)

    def _taken(self) -> int:
        loaded = ("opening", "resident", "closing")
        return sum(e.footprint.need_bytes for e in self._engines.values() if e.state in loaded)

    def _closing(self) -> int:
        engines = self._engines.values()
        return sum(one.footprint.need_bytes for one in engines if one.state == "closing")

    def _residence_us(self, one: _Engine) -> int:
        return max(self._parameters.residence_us, RESIDENCE_LOADS * one.load_us)

    def _rest_us(self, one: _Engine) -> int:
        bounds = self._parameters
        return min(bounds.rest_us << min(one.failures - 1, 16), bounds.rest_max_us)


def footprints(served: Iterable[Served]) -> dict[bytes, Footprint]:
    """Of each engine that computes one of these models."""
    return {one.engine: Footprint(one.need_bytes, one.slots, one.load_us) for one in served}


def _ms(microseconds: int) -> int:
    return -(-microseconds // 1000)
