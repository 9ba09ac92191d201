"""What a deployment is to be: addresses, constructor arguments and code follow from a few choices.

One account creates the contracts at consecutive nonces, so every address is known beforehand and
the wiring is constructor arguments: nothing is set afterwards, and no key stays with the deployer.
The names below are those of the contracts' Config structs and of their immutables, so the same
table makes a contract and checks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from assay_contracts import calls
from assay_contracts.artefact import CONTRACTS, load
from assay_contracts.local.genesis import CHAIN_ID, contract_address
from assay_protocol.errors import AssayError

HOUR: Final = 3_600
DAY: Final = 24 * HOUR
CREDIT: Final = 1_000_000  # micro-credits
NOBODY: Final = bytes(20)
BPS: Final = 10_000
BLOCKHASHES: Final = 256  # that the EVM remembers
MONEY: Final = frozenset(
    {"demand_bond", "min_bond", "min_bond_low", "min_bond_high", "deposit", "penalty_max"}
    | {"equivocation_penalty"}
)
MONEY_MAX: Final = (1 << 96) - 1
NUMBER_MAX: Final = (1 << 32) - 2
# What governance may call; never itself or the timelock.
TARGETS: Final = ("CreditToken", "NodeRegistry", "CreditLedger", "ModelRegistry")
_WIRES: Final = {
    "verifier": "Ed25519Verifier",
    "token": "CreditToken",
    "registry": "NodeRegistry",
    "court": "SlashCourt",
    "timelock": "TimelockController",
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the deployer chooses, once: times in seconds, money in micro-credits, shares in basis
    points. The defaults are for a local chain; `PUBLIC` for one that others mine."""

    window: int = DAY  # in which an epoch can be challenged
    demand_seconds: int = 6 * HOUR  # in which a demanded leaf must be shown
    demand_bond: int = 10 * CREDIT
    reward_bps: int = 5_000  # of a slashed bond, to who proved the fraud
    probation: int = DAY  # from registration to `activate`
    unbonding: int = 14 * DAY  # from `beginExit` to `withdraw`
    min_bond: int = 100 * CREDIT
    min_bond_low: int = CREDIT  # what governance may set min_bond to
    min_bond_high: int = 100_000 * CREDIT
    dispute_window: int = 3 * DAY  # in which an accusation can be disputed
    jury_period: int = 3 * DAY  # from the draw; in it jurors vote
    draw_delay: int = 2  # blocks from the dispute to the one that draws
    deposit: int = 20 * CREDIT  # of an accusation and of a dispute
    penalty_max: int = 100 * CREDIT  # what an accusation may ask for
    equivocation_penalty: int = 100 * CREDIT
    court_reporter_bps: int = 2_500  # of what is slashed
    juror_bps: int = 5_000  # of the lost deposit
    models_open: int = 1  # 1: models that are not listed may be served until governance closes it
    timelock_delay: int = 2 * DAY  # what passed waits as long
    span: int = 30  # epochs whose earnings vote
    voting_delay: int = DAY
    voting_period: int = 5 * DAY
    quorum_bps: int = 400  # of all that was earned in the span
    proposer_bps: int = 100

    def __post_init__(self) -> None:
        """Raises AssayError("config_invalid"). A contract would refuse most of it, but only when
        those before it are there already."""
        positive = (
            *("window", "min_bond_low", "dispute_window", "jury_period", "deposit"),
            *("penalty_max", "equivocation_penalty", "span", "voting_period", "quorum_bps"),
        )
        for name in positive:
            _require(getattr(self, name) > 0, f"{name} must be above 0")
        for field in fields(self):
            number = getattr(self, field.name)
            most = MONEY_MAX if field.name in MONEY else NUMBER_MAX
            most = BPS if field.name.endswith("_bps") else most
            _require(0 <= number <= most, f"{field.name} must be from 0 to {most}")
        _require(self.court_reporter_bps < BPS, "court_reporter_bps must be below 10000")
        _require(self.models_open in (0, 1), "models_open is 0 or 1")
        _require(0 < self.draw_delay < BLOCKHASHES, "draw_delay must be from 1 to 255 blocks")
        _require(self.demand_seconds <= self.window, "demand_seconds must not exceed window")
        bonds = self.min_bond_low <= self.min_bond <= self.min_bond_high
        _require(bonds, "min_bond must be from min_bond_low to min_bond_high")
        dispute = self.dispute_window + self.jury_period
        outlasts = self.unbonding > self.window + dispute
        _require(outlasts, "unbonding must outlast window, dispute_window and jury_period together")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssayError("config_invalid", what)


LOCAL: Final = Parameters()
PUBLIC: Final = replace(
    LOCAL,
    window=7 * DAY,
    demand_seconds=2 * DAY,
    probation=7 * DAY,
    unbonding=28 * DAY,
    draw_delay=32,
    voting_delay=2 * DAY,
    voting_period=7 * DAY,
    timelock_delay=7 * DAY,
)


def choose(parameters: Parameters, settings: Sequence[str]) -> Parameters:
    """`parameters` with each NAME=NUMBER. Raises AssayError("config_invalid")."""
    known = {one.name for one in fields(parameters)}
    chosen: dict[str, int] = {}
    for setting in settings:
        name, _, number = setting.partition("=")
        if name not in known or not number.isdecimal():
            raise AssayError("config_invalid", f"no NAME=NUMBER of {', '.join(sorted(known))}")
        chosen[name] = int(number)
    return replace(parameters, **chosen)


@dataclass(frozen=True, slots=True)
class Creation:
    """One contract to be: where the transaction with `nonce` puts it, and the code it carries."""

    contract: str
    address: bytes
    nonce: int
    code: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """All contracts of one deployment. Addresses are 20 bytes; `poster_key` is the Ed25519 key
    (32 bytes) whose bond answers for what `poster` posts."""

    deployer: bytes
    poster_key: bytes
    poster: bytes
    chain_id: int = CHAIN_ID
    first_nonce: int = 0
    parameters: Parameters = LOCAL

    def __post_init__(self) -> None:
        sizes = (len(self.deployer), len(self.poster), len(self.poster_key))
        if sizes != (20, 20, 32) or self.first_nonce < 0 or self.chain_id <= 0:
            raise AssayError("malformed", "no plan: an address, key or number is out of range")

    @property
    def addresses(self) -> dict[str, bytes]:
        """By contract."""
        nonces = enumerate(CONTRACTS, self.first_nonce)
        return {name: contract_address(self.deployer, nonce) for nonce, name in nonces}

    def creations(self) -> tuple[Creation, ...]:
        """In the order in which they must be sent. "malformed" if a parameter does not fit."""
        arguments = self.arguments()
        return tuple(
            Creation(name, address, nonce, calls.constructor(name, *arguments[name]))
            for nonce, (name, address) in enumerate(self.addresses.items(), self.first_nonce)
        )

    def arguments(self) -> dict[str, tuple[Any, ...]]:
        """The constructors' arguments by contract. What waited in the timelock anybody executes."""
        at, configs = self.addresses, self.configs()
        token = configs["CreditToken"]
        targets = [at[name] for name in TARGETS]
        return {
            "Ed25519Verifier": (),
            "CreditToken": (token["minter"], token["timelock"]),
            "NodeRegistry": (configs["NodeRegistry"],),
            "CreditLedger": (configs["CreditLedger"],),
            "ModelRegistry": (at["TimelockController"], bool(self.parameters.models_open)),
            "SlashCourt": (configs["SlashCourt"],),
            "TimelockController": (
                self.parameters.timelock_delay,
                [at["Governance"]],
                [NOBODY],
                NOBODY,
            ),
            "Governance": (configs["Governance"], targets),
        }

    def configs(self) -> dict[str, dict[str, Any]]:
        """What each contract is told, by the contract's own names for it."""
        at, chosen = self.addresses, self.parameters
        wired = {name: at[contract] for name, contract in _WIRES.items()}
        return {
            "Ed25519Verifier": {},
            "CreditToken": {"minter": at["CreditLedger"], "timelock": wired["timelock"]},
            "NodeRegistry": {
                **_some(wired, "verifier", "token", "court", "timelock"),
                "probation": chosen.probation,
                "unbonding": chosen.unbonding,
                "minBond": chosen.min_bond,
                "minBondLow": chosen.min_bond_low,
                "minBondHigh": chosen.min_bond_high,
            },
            "CreditLedger": self.ledger_config(NOBODY, 0),
            "ModelRegistry": _some(wired, "timelock"),
            "SlashCourt": {
                **_some(wired, "verifier", "token", "registry"),
                "window": chosen.dispute_window,
                "votePeriod": chosen.jury_period,
                "drawDelay": chosen.draw_delay,
                "deposit": chosen.deposit,
                "penaltyMax": chosen.penalty_max,
                "equivocationPenalty": chosen.equivocation_penalty,
                "reporterBps": chosen.court_reporter_bps,
                "jurorBps": chosen.juror_bps,
            },
            "TimelockController": {},
            "Governance": {
                **_some(wired, "token", "registry", "timelock"),
                "span": chosen.span,
                "delay": chosen.voting_delay,
                "period": chosen.voting_period,
                "quorumBps": chosen.quorum_bps,
                "proposerBps": chosen.proposer_bps,
            },
        }

    def ledger_config(self, previous: bytes, base_epoch: int) -> dict[str, Any]:
        """Of a ledger that goes on from `previous` after `base_epoch`; or stands alone."""
        at, chosen = self.addresses, self.parameters
        wired = {name: at[contract] for name, contract in _WIRES.items()}
        return {
            **_some(wired, "token", "registry", "timelock"),
            "poster": self.poster,
            "posterKey": self.poster_key,
            "window": chosen.window,
            "demandSeconds": chosen.demand_seconds,
            "demandBond": chosen.demand_bond,
            "rewardBps": chosen.reward_bps,
            "previous": previous,
            "baseEpoch": base_epoch,
        }


def immutables_differ(contract: str, code: bytes, config: dict[str, Any]) -> list[str]:
    """The immutables of deployed `code` (`Artefact.is_code` of it) that are not as `config` says;
    one that `config` does not name differs, too."""
    artefact = load(contract)
    return [
        name
        for name in sorted(artefact.immutables)
        if artefact.immutable(code, name) != _number(config.get(name, -1))
    ]


def _some(wired: dict[str, bytes], *names: str) -> dict[str, Any]:
    return {name: wired[name] for name in names}


def _number(value: Any) -> int:
    return int.from_bytes(value) if isinstance(value, bytes) else int(value)
