"""Carries out a scenario's faults: each begins, lasts, and is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from assay_simnet.history import History
from assay_simnet.links import Links
from assay_simnet.scenario import Fault, Scenario
from assay_simnet.seeds import Stream, Streams

Undo = Callable[[], None]
COORDINATOR: Final = -1
NOT_HERE: Final = "the scenario's reader refuses what its level cannot do"


class Timetable(Protocol):
    """A clock that calls back. Microseconds."""

    def at(self, at_us: int, call: Callable[..., None], *args: Any) -> None: ...

    def after(self, delay_us: int, call: Callable[..., None], *args: Any) -> None: ...


class FaultyNode(Protocol):
    """What can befall a node."""

    number: int

    @property
    def up(self) -> bool: ...  # it has a process
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def jump(self, by_us: int) -> None: ...
    def drift(self, ppm: int) -> None: ...
    def engine_crash(self) -> None: ...
    def flip_bit(self) -> None: ...
    def slow_disk(self, save_us: int) -> None: ...
    def fill_disk(self) -> None: ...
    def quick_disk(self) -> None: ...


@runtime_checkable
class CuttableNode(Protocol):
    """... where a level has lines, and commits that can be cut short."""

    def clog(self, until_us: int) -> None: ...
    def unclog(self) -> None: ...
    def tear(self, *, keeps: bool) -> None: ...
    def mend(self) -> None: ...


class FaultyCoordinator(Protocol):
    """What can befall the coordinator and its chain."""

    down: bool
    chain_down: bool

    def crash(self) -> None: ...
    def restart(self) -> None: ...
    def chain_back(self) -> None: ...
    def reorganise(self, depth: int, forgets: Callable[[], bool]) -> None: ...


@runtime_checkable
class CuttableCoordinator(Protocol):
    """... where a level has commits that can be cut short."""

    def crash_in_commit(self, *, keeps: bool) -> None: ...


class FaultyWorld(Protocol):
    """A network that things happen to."""

    scenario: Scenario
    streams: Streams
    links: Links
    history: History

    @property
    def now(self) -> int: ...
    @property
    def buckets(self) -> Timetable: ...
    @property
    def coordinator(self) -> FaultyCoordinator: ...
    @property
    def nodes(self) -> Sequence[FaultyNode]: ...

    def cut_off(self) -> None:
        """A partition began or ended."""
        ...


class Faults:
    """All faults of one run; `over` ends those that still last."""

    def __init__(self, world: FaultyWorld) -> None:
        self._world = world
        self._lasting: dict[int, Undo] = {}
        self._count = 0
        self.happened = 0
        self._flipped: set[int] = set()

    def schedule(self, begins_us: int, ends_us: int) -> None:
        """`begins_us`: when the safety phase does; nothing begins after `ends_us`."""
        for index, fault in enumerate(self._world.scenario.faults):
            stream = self._world.streams.stream(f"fault:{index}")
            at = begins_us + fault.at
            while at + fault.for_ <= ends_us:
                self._world.buckets.at(at, self._begin, fault, stream)
                if not fault.every:
                    break
                at += fault.every

    def over(self) -> None:
        """The heal phase begins."""
        for undo in list(self._lasting.values()):
            undo()
        self._lasting = {}

    def _begin(self, fault: Fault, stream: Stream) -> None:
        world = self._world
        self.happened += 1
        world.history.note(world.now, COORDINATOR, COORDINATOR, fault.kind)
        undo = self._do(fault, stream)
        if undo is None:
            return
        self._count += 1
        number = self._count
        self._lasting[number] = undo
        if fault.for_:
            world.buckets.after(fault.for_, self._end, number)

    def _end(self, number: int) -> None:
        undo = self._lasting.pop(number, None)
        if undo is not None:
            undo()

    def _do(self, fault: Fault, stream: Stream) -> Undo | None:
        if fault.kind in ("loss", "duplicate", "reorder", "delay", "partition"):
            return self._network(fault)
        if fault.kind in ("coordinator_crash", "commit_crash", "chain_outage", "chain_reorg"):
            return self._central(fault, stream)
        return self._nodes(fault, stream)

    def _network(self, fault: Fault) -> Undo:
        links = self._world.links
        weather = links.weather
        if fault.kind == "partition":
            group = frozenset(fault.regions)
            links.cut(group, one_way=fault.one_way)
            self._world.cut_off()

            def heal() -> None:
                links.heal(group)
                self._world.cut_off()

            return heal
        name, value = fault.kind, fault.fraction
        if fault.kind == "delay":
            name, value = "delay_us", fault.by
        setattr(weather, name, value)
        return lambda: setattr(weather, name, type(value)(0))

    def _central(self, fault: Fault, stream: Stream) -> Undo | None:
        coordinator = self._world.coordinator
        if fault.kind == "chain_outage":
            coordinator.chain_down = True
            return coordinator.chain_back
        if fault.kind == "chain_reorg":
            coordinator.reorganise(fault.depth, lambda: stream.chance(fault.fraction))
            return None
        if coordinator.down:
            return None
        if fault.kind == "commit_crash":
            assert isinstance(coordinator, CuttableCoordinator), NOT_HERE
            coordinator.crash_in_commit(keeps=stream.chance(0.5))
        else:
            coordinator.crash()
        return coordinator.restart

    def _nodes(self, fault: Fault, stream: Stream) -> Undo | None:
        """A share of nodes; of those a bit flips in, each only once: twice is no bad luck."""
        nodes = [one for one in self._world.nodes if one.up]
        if fault.kind == "bit_flip":
            nodes = [one for one in nodes if one.number not in self._flipped]
        hit = [one for one in nodes if stream.chance(fault.fraction)]
        for node in hit:
            self._hit(fault, node, stream)
        undo = _UNDO.get(fault.kind)
        if undo is None:
            return None

        def recover() -> None:
            for node in hit:
                undo(node)

        return recover

    def _hit(self, fault: Fault, node: FaultyNode, stream: Stream) -> None:
        match fault.kind:
            case "node_crash":
                node.stop()
            case "freeze":
                node.freeze()
            case "clock_jump":
                node.jump(fault.by if stream.chance(0.5) else -fault.by)
            case "clock_drift":
                node.drift(fault.ppm if stream.chance(0.5) else -fault.ppm)
            case "engine_crash":
                node.engine_crash()
            case "bit_flip":
                node.flip_bit()
                self._flipped.add(node.number)
            case "clog":
                self._swizzle(fault.for_, node, stream)
            case "torn_disk":
                assert isinstance(node, CuttableNode), NOT_HERE
                node.tear(keeps=stream.chance(0.5))
            case "slow_disk":
                node.slow_disk(fault.by)
            case "disk_full":
                node.fill_disk()

    def _swizzle(self, lasts_us: int, node: FaultyNode, stream: Stream) -> None:
        """Lines clog one after another in the first third, and clear in another order in the
        last: FoundationDB's swizzle."""
        assert isinstance(node, CuttableNode), NOT_HERE
        third, now = lasts_us // 3, self._world.now
        begins = stream.below(third + 1)
        until = now + 2 * third + stream.below(third + 1)
        self._world.buckets.after(begins, node.clog, until)


def _started(node: FaultyNode) -> None:
    if not node.up:
        node.start()


def _mended(node: FaultyNode) -> None:
    assert isinstance(node, CuttableNode), NOT_HERE
    node.mend()


def _cleared(node: FaultyNode) -> None:
    assert isinstance(node, CuttableNode), NOT_HERE
    node.unclog()


_UNDO: Final[dict[str, Callable[[FaultyNode], None]]] = {
    "node_crash": _started,
    "torn_disk": _mended,
    "freeze": lambda node: node.thaw(),
    "clog": _cleared,
    "slow_disk": lambda node: node.quick_disk(),
    "disk_full": lambda node: node.quick_disk(),
}
