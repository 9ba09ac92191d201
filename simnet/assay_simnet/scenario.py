"""A scenario: everything that one run is made of, read strictly from a TOML file.

The dataclasses below are the format; docs/simnet.md has it as tables. Values with units are texts
("20 ms"). What cannot be run is refused here, with file and line, before anything is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from assay_coordinator.core.policy import Policy
from assay_node.core.parameters import Parameters
from assay_protocol.limits import OUTPUT_TOKENS_MAX, ROUND_RECEIPTS_MAX
from assay_simnet import cheats, churn, traces
from assay_simnet.audit_policies import EPOCH_US, SCHEMES
from assay_simnet.economy import Economy, Vote
from assay_simnet.evidence import CLASSES
from assay_simnet.fault_kinds import FAULTS
from assay_simnet.machine_costs import MACHINES, Machine
from assay_simnet.population import NATS, PROFILES, REGIONS, Profile, fits
from assay_simnet.quantities import (
    QuantityError,
    bits_per_s,
    latency,
    rate_per_s,
    share,
    size_bytes,
    time_us,
)
from assay_simnet.schema import (
    ScenarioError,
    Source,
    flag,
    number,
    one_of,
    parse,
    read_file,
    some_of,
    table,
    text,
    unknown,
    value,
    weights,
    whole,
)
from assay_simnet.seeds import ROOT_MAX

SCHEMA: Final = 1
LEVELS: Final = ("fast", "live", "epochs", "real")  # drivers/levels.py
SHIPPED: Final = Path(__file__).with_name("scenarios")
SILENCE_US: Final = 30_000_000  # then production ends a session
LAWS: Final = ("poisson", "gamma", "trace", "none")  # of arrivals (arrivals.py)
LENGTHS: Final = ("fixed", "exponential", "zipf")
INVARIANTS: Final = (
    *("L1", "L2", "L3", "L4", "L5", "L6", "S1", "S2", "S3", "V1", "B1", "P1", "D1"),
)
REAL_NODES_MAX: Final = 16
REAL_CLIENTS_MAX: Final = 64
REAL_CONTEXT_MAX: Final = 2_048  # of SmolLM2-135M
REAL_CHEAT: Final = "quant_q2"  # behaviours/cheaper_model.py
REAL_FAULTS: Final = ("coordinator_crash", "node_crash", "freeze")  # drivers/real_faults.py
NOT_LIVE: Final = {
    "clog": "it has no lines",
    "torn_disk": "its databases are in memory",
    "commit_crash": "its databases are in memory",
    "duplicate": "its connections deliver once, as TCP's do",
    "reorder": "its connections keep order, as TCP's do",
    "slow_disk": "its databases take no virtual time",
}
EPOCHS_MAX: Final = 100_000
TREE_NODES_MAX: Final = 10_000  # of a root of credit at level "epochs"
_NOT_IN_FILES: Final = frozenset({"operators", "epoch_policy"})
_REGION: Final = one_of(REGIONS, "region")
_T = TypeVar("_T", Profile, Machine)
_PROFILE_WEIGHTS: Final = weights(PROFILES, "profile")
_REGION_WEIGHTS: Final = weights(REGIONS, "region")
_NAT_WEIGHTS: Final = weights(NATS, "kind of NAT")
_CLASS_WEIGHTS: Final = weights(CLASSES, "class")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The one model everybody serves."""

    parameters: float = value(number(1e6, 1e13), 8e9, "active parameters")
    size: int = value(size_bytes, "4.92 GB", "of its file: what every token reads")
    context: int = value(whole(64, 131_072), 4_096, "tokens of prompt and answer together")
    price_in: int = value(whole(0, 10**9), 100, "micro-credits for 1,000 prompt tokens")
    price_out: int = value(whole(0, 10**9), 400, "micro-credits for 1,000 answer tokens")


@dataclass(frozen=True, kw_only=True)
class Population:
    """Who serves."""

    nodes: int = value(whole(1, 1_000_000), 20)
    operators: int = value(whole(0, 1_000_000), 0, "owners of honest nodes; 0: one for each")
    profiles: dict[str, float] = value(_PROFILE_WEIGHTS, {"rtx4090-24g": 1.0})  # noqa: RUF009
    regions: dict[str, float] = value(_REGION_WEIGHTS, {"na": 1.0})  # noqa: RUF009
    classes: dict[str, float] = value(  # noqa: RUF009
        _CLASS_WEIGHTS, dict.fromkeys(CLASSES, 1.0), "ways to compute the model, as recorded"
    )
    nat: dict[str, float] = value(  # noqa: RUF009
        _NAT_WEIGHTS, {"open": 1.0}, "cone, symmetric: no stranger can dial it"
    )
    established: float = value(share, 1.0, "share of honest nodes with a record")
    verified: int = value(whole(0, 1 << 30), 400, "audits those have passed before")
    queue: int = value(whole(0, 100_000), 8, "jobs a node admits beyond its slots")


@dataclass(frozen=True, kw_only=True)
class Network:
    """What lies between them."""

    latency: str = value(latency, "world-5", "or one time for all, one way")
    jitter: int = value(time_us, "2 ms", "mean of what is added, exponential")
    loss: float = value(share, 0, "share of messages that are sent again")
    up: float = value(bits_per_s, 0, 'of a node\'s line, like "20 Mbit/s"; 0: takes no time')
    down: float = value(bits_per_s, 0)
    coordinator: str = value(_REGION, "na", "its region")


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What rounds and epochs are posted on: a chain that others mine."""

    block: int = value(time_us, "12 s", "between two blocks")
    confirmations: int = value(
        whole(0, 1_000), 0, "blocks above one that is taken for final; production's default is 12"
    )


@dataclass(frozen=True, kw_only=True)
class Churn:
    """Nodes' comings and goings (churn.py)."""

    model: str = value(one_of(churn.MODELS, "model"), "none")
    session_mean: int = value(time_us, "6 h")
    away_mean: int = value(time_us, "30 min")
    shape: float = value(number(0.1, 10.0), 0.6, "of Weibull's and Pareto's laws")
    trace: str = value(text, "-", "a CSV with the columns up_s, away_s")
    clean: float = value(share, 0.5, "share of departures that drain first")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What clients ask (arrivals.py)."""

    arrivals: str = value(one_of(LAWS, "law"), "poisson")
    rate: float = value(rate_per_s, "2 / s", "sessions, in the mean")
    gamma_shape: float = value(number(0.01, 100.0), 0.5, "below 1: bursts")
    trace: str = value(one_of(traces.NAMES, "trace"), "azure-2023-conv")
    trace_file: str = value(text, "-", "the real file; without one, the made-up sample")
    rate_scale: float = value(number(1e-3, 1e6), 1.0, "how much faster than the trace")
    clients: int = value(whole(1, 1_000_000), 50)
    lengths: str = value(one_of(LENGTHS, "law"), "exponential")
    prompt_tokens: int = value(whole(1, 131_072), 96, "mean of what is new in a prompt")
    prompt_most: int = value(whole(1, 131_072), 1_024)
    answer_tokens: int = value(whole(1, OUTPUT_TOKENS_MAX), 64, "mean")
    answer_most: int = value(whole(1, OUTPUT_TOKENS_MAX), 256)
    zipf: float = value(number(0.1, 10.0), 1.1, "the exponent, where lengths are Zipf's")
    turns: float = value(number(1.0, 100.0), 1.0, "of a session, in the mean")
    turns_most: int = value(whole(1, 1_000), 20)
    think: int = value(time_us, "10 s", "between turns, in the mean")
    surge_at: int = value(time_us, 0, "a crowd comes, from the start of the workload")
    surge_for: int = value(time_us, 0)
    surge_factor: float = value(number(1.0, 10_000.0), 10.0)
    verify: str = value(one_of(("none", "sample", "now"), "level"), "sample")


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """Nodes or clients that break the rules (cheats.py)."""

    behaviour: str = value(one_of(cheats.BEHAVIOURS, "behaviour"))
    fraction: float = value(share, 0, "of the population; of clients for behaviours of clients")
    count: int = value(whole(0, 1_000_000), 0, "or so many")
    cheat: float = value(share, 1.0, "share of jobs it cheats on")
    after: int = value(whole(0, 1 << 30), 0, "honest jobs before the first")
    operators: int = value(whole(0, 1_000_000), 0, "owners of all of them; 0: one each")
    verified: int = value(whole(0, 1 << 30), 0, "audits they have passed before")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that breaks for a while. `at` counts from the end of the warm-up."""

    kind: str = value(one_of(FAULTS, "kind of fault"))
    at: int = value(time_us, says="when it begins, from the end of the warm-up")
    for_: int = value(time_us, 0, "how long; 0: at once, or until the safety phase ends")
    every: int = value(time_us, 0, "again and again, until the safety phase ends")
    fraction: float = value(share, 1.0, "of nodes, messages, or what a re-org's pool forgets")
    regions: tuple[str, ...] = value(some_of(REGIONS, "region"), [], "cut off by a partition")
    one_way: bool = value(flag, False, "only what leaves those regions is lost")
    by: int = value(time_us, "1 s", "delay, jump of clocks, or a disk's slowness")
    ppm: int = value(whole(0, 1_000_000), 200, "of drifting clocks")
    depth: int = value(whole(1, 1_000), 3, "blocks that a re-org makes others")


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Which invariants are checked (docs/INVARIANTS.md)."""

    of: tuple[str, ...] = value(some_of(INVARIANTS, "invariant"), list(INVARIANTS))
    every: int = value(time_us, "5 s", "between two looks at what is always to hold")
    probe: int = value(
        whole(0, 1 << 20), 40, "one hand-in in so many is also sent damaged; 0: none"
    )
    bytes: bool = value(flag, False, "decode every message from its bytes, as two machines would")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One whole run but for its seed."""

    name: str = value(text)
    level: str = value(one_of(LEVELS, "level"), "fast", "fast, live, epochs or real")
    seed: int = value(whole(0, ROOT_MAX), 1)
    warm_up: int = value(time_us, "20 s", "before the first job: everybody joins")
    duration: int = value(time_us, "10 min", "of the safety phase: jobs arrive, faults happen")
    heal: int = value(time_us, "2 h", "at most, until all that was begun has ended")
    tick: int = value(time_us, "1 ms", "what is due within one tick happens at its end")
    signatures: str = value(one_of(("keyed", "ed25519"), "kind"), "keyed")
    audits: str = value(
        one_of(SCHEMES, "scheme"), "assay", "whose rules: assay (production's), boinc or gonka"
    )
    slo_ttft: int = value(time_us, "2 s", "goodput: a first token by then")
    slo_tpot: int = value(time_us, "100 ms", "and every further one within this, in the mean")
    model: Model = field(default_factory=Model)
    population: Population = field(default_factory=Population)
    network: Network = field(default_factory=Network)
    chain: Chain = field(default_factory=Chain)
    churn: Churn = field(default_factory=Churn)
    workload: Workload = field(default_factory=Workload)
    checks: Checks = field(default_factory=Checks)
    economy: Economy = field(default_factory=Economy)
    governance: Vote = field(default_factory=Vote)
    adversaries: tuple[Adversary, ...] = ()
    faults: tuple[Fault, ...] = ()
    policy: Policy = field(default_factory=Policy)
    profiles: dict[str, Profile] = field(default_factory=lambda: dict(PROFILES))
    machines: dict[str, Machine] = field(default_factory=lambda: dict(MACHINES))
    question: str = ""  # the file's first comment

    @property
    def digest(self) -> str:
        """Of everything that decides the run, but the seed."""
        parts = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}
        del parts["seed"], parts["question"]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


_TABLES: Final[dict[str, type]] = {
    "model": Model,
    "population": Population,
    "network": Network,
    "chain": Chain,
    "churn": Churn,
    "workload": Workload,
    "checks": Checks,
    "economy": Economy,
    "governance": Vote,
}
LISTS: Final[dict[str, tuple[str, type]]] = {
    "adversary": ("adversaries", Adversary),
    "fault": ("faults", Fault),
}


def source_of(name: str | Path) -> Source:
    """A file's text, or a shipped scenario's by name. Raises ScenarioError."""
    path = Path(name)
    if not path.suffix and not path.is_file():
        path = SHIPPED / f"{name}.toml"
        if not path.is_file():
            known = [one.stem for one in SHIPPED.glob("*.toml")]
            raise ScenarioError(unknown(str(name), known, "scenario"))
    return read_file(path)


def read(source: Source) -> Scenario:
    """The scenario of a text. Raises ScenarioError."""
    given = parse(source)
    given.pop("sweep", None)  # grid.py reads it
    schema = given.pop("schema", None)
    if schema != SCHEMA:
        raise source.error(("schema",), f"schema = {SCHEMA} wanted, there is {schema!r}")
    parts: dict[str, Any] = {}
    for key, cls in _TABLES.items():
        if key in given:
            parts[key] = table(cls, source, (key,), given.pop(key))
    for key, (name, cls) in LISTS.items():
        listed = given.pop(key, [])
        if not isinstance(listed, list):
            raise source.error((key,), f"write [[{key}]], once for each")
        parts[name] = tuple(table(cls, source, (key, i), one) for i, one in enumerate(listed))
    if "coordinator" in given:
        parts["policy"] = _policy(source, given.pop("coordinator"))
    parts["profiles"] = _changed(source, "profile", PROFILES, given.pop("profile", {}))
    parts["machines"] = _changed(source, "machine", MACHINES, given.pop("machine", {}))
    top = (*_TABLES, *LISTS, "coordinator", "profile", "machine")
    for key, entry in given.items():
        if isinstance(entry, dict):
            raise source.error((key,), unknown(key, top, "table"))
    scenario = replace(table(Scenario, source, (), given), **parts, question=_question(source))
    if scenario.level in ("live", "real") and "tick" in given:
        why = f"tick: level {scenario.level} has none, its time is exact"
        raise source.error(("tick",), why)
    _check(source, scenario)
    return scenario


def write(scenario: Scenario) -> str:
    """All of it as JSON, for the manifest."""
    parts = {item.name: _plain(getattr(scenario, item.name)) for item in fields(scenario)}
    return json.dumps(parts, sort_keys=True)


# ---- inside ------------------------------------------------------------------------------------


def _policy(source: Source, given: object) -> Policy:
    """The production policy file's keys. Times may be texts, under their name without `_us`."""
    if not isinstance(given, dict):
        raise source.error(("coordinator",), "coordinator is a table")
    known = {item.name for item in fields(Policy)} - _NOT_IN_FILES
    texts = {name.removesuffix("_us"): name for name in known if name.endswith("_us")}
    values: dict[str, Any] = {}
    for key, entry in given.items():
        at = ("coordinator", key)
        try:
            if key in texts:
                values[texts[key]] = time_us(entry)
            elif key in known:
                values[key] = whole(0, _policy_most(key))(entry)
            else:
                raise source.error(at, unknown(key, known | set(texts)))
        except QuantityError as error:
            raise source.error(at, f"{key}: {error}") from error
    return Policy(**values)


def _policy_most(key: str) -> int:
    """As the production file's reader has it."""
    if "_bps" in key:
        return 10_000
    if key == "round_receipts":
        return ROUND_RECEIPTS_MAX
    return 1 << 62 if key.endswith("_us") else 1 << 31


def _changed(source: Source, what: str, listed: dict[str, _T], given: object) -> dict[str, _T]:
    """What is listed by profile, with the numbers that [profile.NAME] or [machine.NAME] change."""
    if not isinstance(given, dict):
        raise source.error((what,), f"write [{what}.NAME]")
    found = dict(listed)
    for name, changes in given.items():
        if name not in found:
            raise source.error((what, name), unknown(name, found, "profile"))
        if not isinstance(changes, dict):
            raise source.error((what, name), f"write [{what}.{name}]")
        known = {item.name for item in fields(found[name])}
        for key, entry in changes.items():
            at = (what, name, key)
            if key not in known:
                raise source.error(at, unknown(key, known))
            read: Callable[[Any], Any] = _PROFILE_READS.get(key, number(1e-3, 1e12))
            try:
                changed: dict[str, Any] = {key: read(entry)}
                found[name] = replace(found[name], **changed)
            except QuantityError as error:
                raise source.error(at, f"{key}: {error}") from error
    return found


def _decode_shares(given: object) -> tuple[float, ...]:
    """None grows: more answers at once make none of them faster."""
    if not isinstance(given, list):
        raise QuantityError(f"{given!r}: a list of shares wanted, for 2, 3, ... answers at once")
    shares = tuple(share(one) for one in given)
    if list(shares) != sorted(shares, reverse=True) or not all(shares):
        raise QuantityError(f"{given!r}: shares above 0 wanted, none above the one before")
    return shares


_PROFILE_READS: Final[dict[str, Callable[[Any], Any]]] = {
    "slots": whole(1, 4_096),
    "decode_shares": _decode_shares,
    "request_ms": number(0.0, 60_000.0),
    "redraw_ms": number(0.0, 60_000.0),
    "step_tokens": whole(0, 131_072),
}


def _latency(given: object) -> str:
    return "world-5" if given == "world-5" else str(time_us(given))


def _question(source: Source) -> str:
    first = source.text.split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _check(source: Source, scenario: Scenario) -> None:
    """What no single value shows."""
    for name in scenario.population.profiles:
        if not fits(scenario.profiles[name], scenario.model.size):
            why = f"a model of {scenario.model.size / 1e9:g} GB does not fit {name}"
            raise source.error(("population", "profiles"), why)
    work = scenario.workload
    if work.prompt_most + work.answer_most > scenario.model.context:
        why = "prompt_most + answer_most is more than the model's context"
        raise source.error(("workload", "prompt_most"), why)
    if work.arrivals in ("poisson", "gamma") and work.rate <= 0:
        raise source.error(("workload", "rate"), "rate: more than 0 wanted")
    if scenario.level == "live":
        _check_live(source, scenario)
    if scenario.chain.block <= 0:
        raise source.error(("chain", "block"), "block: more than 0 wanted")
    if scenario.tick <= 0 or scenario.tick > 1_000_000:
        raise source.error(("tick",), "tick: more than 0 and at most a second wanted")
    if scenario.audits == "gonka" and scenario.level == "fast" and scenario.duration >= EPOCH_US:
        raise source.error(("duration",), "duration: less than one of Gonka's epochs, 24 h, wanted")
    if 1_000_000 % scenario.tick:
        raise source.error(("tick",), "tick: so much wanted that a second is a whole number of it")
    if scenario.churn.model == "trace" and scenario.churn.trace == "-":
        raise source.error(("churn", "model"), "trace: which file? (churn.trace)")
    if scenario.churn.model == "pareto" and scenario.churn.shape <= 1:
        raise source.error(("churn", "shape"), "shape: Pareto's mean is infinite at 1 and below")
    for index, one in enumerate(scenario.adversaries):
        if not one.count and not one.fraction:
            raise source.error(("adversary", index), "how many? (count or fraction)")
    nodes = sum(
        number_of(one, scenario.population.nodes)
        for one in scenario.adversaries
        if not cheats.BEHAVIOURS[one.behaviour].of_clients
    )
    if nodes > scenario.population.nodes:
        raise source.error(("adversary", 0), "there are more adversaries than nodes")
    _check_faults(source, scenario)
    if scenario.level == "epochs":
        _check_epochs(source, scenario)
    if scenario.level == "real":
        for where, why in _not_real(scenario):
            raise source.error(where, f"level real: {why}")


def _check_epochs(source: Source, scenario: Scenario) -> None:
    """What level "epochs" does not model is refused, not ignored."""
    economy, policy = scenario.economy, scenario.policy
    if scenario.faults:
        raise source.error(("fault", 0), 'level "epochs" has no faults')
    if scenario.workload.arrivals not in ("poisson", "gamma"):
        raise source.error(("workload", "arrivals"), 'level "epochs" wants "poisson" or "gamma"')
    for index, one in enumerate(scenario.adversaries):
        if not cheats.BEHAVIOURS[one.behaviour].counted:
            known = ", ".join(sorted(n for n, c in cheats.BEHAVIOURS.items() if c.counted))
            why = f'level "epochs" does not count {one.behaviour!r}; it counts {known}'
            raise source.error(("adversary", index, "behaviour"), why)
    holds = (policy.holdback_epochs + 1) * policy.epoch_us
    if not holds <= economy.epoch <= scenario.duration:
        why = f"an epoch is from {holds / 3.6e9:g} h, when held pay is out, to the whole duration"
        raise source.error(("economy", "epoch"), why)
    if scenario.duration // economy.epoch > EPOCHS_MAX:
        raise source.error(("duration",), f"more than {EPOCHS_MAX:,} epochs")
    if economy.tree_every and scenario.population.nodes > TREE_NODES_MAX:
        why = f"tree_every: roots are of at most {TREE_NODES_MAX:,} nodes"
        raise source.error(("economy", "tree_every"), why)


def _not_real(scenario: Scenario) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What processes on one machine cannot do, and where the file asks for it."""
    people, network, work = scenario.population, scenario.network, scenario.workload
    if people.nodes > REAL_NODES_MAX:
        yield ("population", "nodes"), f"each node is a process; at most {REAL_NODES_MAX}"
    if work.clients > REAL_CLIENTS_MAX:
        yield ("workload", "clients"), f"at most {REAL_CLIENTS_MAX} clients"
    if len(people.regions) > 1:
        yield ("population", "regions"), "all is on one machine; one region at most"
    if people.queue != Parameters().queue_max:
        why = f"a node's queue is {Parameters().queue_max}, which is no setting"
        yield ("population", "queue"), why
    if scenario.model.context > REAL_CONTEXT_MAX:
        why = f"the test model has {REAL_CONTEXT_MAX:,} tokens of context"
        yield ("model", "context"), why
    if network.loss:
        yield ("network", "loss"), "loopback loses nothing"
    if scenario.churn.model != "none":
        yield ("churn", "model"), "nobody comes or goes; node_crash is a fault"
    if scenario.policy.links != Policy().links:
        yield ("coordinator", "links"), "links is no key of the production policy file"
    for index, one in enumerate(scenario.adversaries):
        place = ("adversary", index)
        if one.behaviour != REAL_CHEAT:
            why = f"{one.behaviour} has no process of its own; {REAL_CHEAT} has"
            yield (*place, "behaviour"), why
        elif one.cheat < 1 or one.after:
            yield place, "a process that serves a cheaper model does so from its first job on"
    for index, fault in enumerate(scenario.faults):
        if fault.kind not in REAL_FAULTS:
            why = f"{fault.kind} cannot be done to processes; {', '.join(REAL_FAULTS)} can"
            yield ("fault", index, "kind"), why


def _check_faults(source: Source, scenario: Scenario) -> None:
    for index, fault in enumerate(scenario.faults):
        at = ("fault", index)
        if fault.at + fault.for_ > scenario.duration:
            why = "it lasts longer than the safety phase (duration)"
            raise source.error((*at, "at"), why)
        if fault.kind == "partition" and not fault.regions:
            raise source.error((*at, "kind"), "a partition needs regions = [...]")
        if scenario.level == "live" and fault.kind in NOT_LIVE:
            why = f"level live has no fault {fault.kind!r}: {NOT_LIVE[fault.kind]}"
            raise source.error((*at, "kind"), why)
        if fault.kind == "chain_reorg" and fault.depth > scenario.chain.confirmations:
            why = f"than chain.confirmations ({scenario.chain.confirmations}), what is final"
            raise source.error((*at, "depth"), f"depth: deeper {why}, is undone")
        if fault.kind == "clog" and not 0 < fault.for_ <= SILENCE_US:
            why = "a clog needs for, at most 30 s; after that sessions end, as in a partition"
            raise source.error((*at, "for" if fault.for_ else "kind"), why)
        if fault.every and fault.every <= fault.for_:
            raise source.error((*at, "every"), "every: it comes again before it is over")


def _check_live(source: Source, scenario: Scenario) -> None:
    """What would be passed over in silence there."""
    lines = [("network", key) for key in ("up", "down") if getattr(scenario.network, key)]
    lines += [
        ("profile", name) for name, one in scenario.profiles.items() if one.up_mbps or one.down_mbps
    ]
    if lines:
        raise source.error(lines[0], "level live has no lines of a bandwidth")
    if any(scenario.population.nat[name] for name in scenario.population.nat if name != "open"):
        raise source.error(("population", "nat"), "level live has no NATs")
    for index, one in enumerate(scenario.adversaries):
        if cheats.BEHAVIOURS[one.behaviour].buys:
            raise source.error(("adversary", index), f"level live has no {one.behaviour}")


def number_of(adversary: Adversary, population: int) -> int:
    """How many of them there are."""
    return adversary.count or round(adversary.fraction * population)


def _plain(thing: Any) -> Any:
    if isinstance(thing, dict):
        return {key: _plain(one) for key, one in thing.items()}
    if isinstance(thing, tuple | list | frozenset):
        return [_plain(one) for one in thing]
    if isinstance(thing, bytes):
        return thing.hex()
    return _plain(asdict(thing)) if hasattr(thing, "__dataclass_fields__") else thing
