"""What the court and governance cost on the local chain: a block each, storage cold as anywhere.

Run with `-s` to see the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from assay_contracts import calls
from assay_contracts.adapters.wallet import wallet_key
from assay_contracts.deploy.plan import Plan
from assay_contracts.ed25519_hints import signed
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import CHAIN_ID, Genesis, address_of, poster_key
from assay_protocol.signing import Identity
from contracts.books import Books
from contracts.courtroom import CULPRIT, KEY, SEAL, receipts, two
from contracts.electorate import DENY, FOR
from contracts.network_evm import QUICK, registration_text

POSTER: Final = poster_key(bytes(range(32)))
JURORS: Final = [Identity(bytes([40 + n]) * 32) for n in range(7)]
GAS: Final = 10_000_000
TRANSACTION_GAS_MAX: Final = 10_000_000


class Mined:
    """All eight contracts on a local chain; every call is mined."""

    def __init__(self, chain: LocalChain, clock: Any) -> None:
        self.chain, self.clock = chain, clock
        self.poster = address_of(POSTER)
        self.wiring = replace(QUICK, voting_delay=5, draw_delay=1)
        plan = Plan(self.poster, bytes([0xEE]) * 32, self.poster, parameters=self.wiring)
        self.at = plan.addresses
        self.nonces: dict[bytes, int] = {}
        for each in plan.creations():
            made = chain.send(POSTER, None, each.code, gas=GAS)
            show(f"deploy {each.contract}", made.gas_used)

    def gas(self, contract: str, function: str, *arguments: object, key: bytes = POSTER) -> int:
        """Of the transaction, which must succeed."""
        data = calls.encode(contract, function, *arguments)
        return self.chain.send(key, self.at[contract], data, gas=GAS).gas_used

    def ask(self, contract: str, function: str, *arguments: object) -> Any:
        data = calls.encode(contract, function, *arguments)
        return calls.decode(contract, function, self.chain.call(self.at[contract], data))

    def pass_time(self, seconds: int) -> None:
        self.clock.now += seconds + 100  # blocks without a tick are a second apart

    def consent(self, identity: Identity, named: bytes, domain: str) -> Any:
        nonce = self.nonces.get(identity.public_key, 0)
        self.nonces[identity.public_key] = nonce + 1
        registry = self.at["NodeRegistry"]
        text = registration_text(registry, named, domain, nonce, chain=CHAIN_ID)
        return signed(identity, text)

    def enroll(self, identity: Identity, key: bytes) -> int:
        """Gives the gas of `register`."""
        owner = address_of(key)
        if key != POSTER:
            self.gas("CreditToken", "transfer", owner, 5_000)
        for spender in ("NodeRegistry", "SlashCourt"):
            self.gas("CreditToken", "approve", self.at[spender], 2**255, key=key)
        arguments = (identity.public_key, 200, self.consent(identity, owner, "Register"))
        return self.gas("NodeRegistry", "register", *arguments, key=key)


def show(what: str, gas: int) -> None:
    print(f"{what:<40}{gas:>10,}")
    assert gas <= TRANSACTION_GAS_MAX


@pytest.fixture
def mined(chain_path: Path, clock: Any) -> Iterator[tuple[Mined, Books]]:
    """The poster has tokens; in the second epoch's tree are 1,024 leaves."""
    with LocalChain.open(chain_path, genesis=Genesis(address_of(POSTER)), clock=clock) as opened:
        network = Mined(opened, clock)
        books = Books()
        consent = network.consent(CULPRIT, network.poster, "Bind")
        show("bind", network.gas("NodeRegistry", "bind", KEY, network.poster, consent))
        others = {(n.to_bytes(32), 0): [10] for n in range(1, 1_024)}
        for epoch, earned in ((1, {(KEY, 0): [10**6]}), (2, others), (3, {(KEY, 0): [10**6]})):
            header = books.book(earned).header()
            network.gas("CreditLedger", "post", epoch, header)
        network.pass_time(network.wiring.window)
        network.gas("CreditLedger", "claim", 1, *books.epochs[1].place(0))
        yield network, books


def test_the_court(mined: tuple[Mined, Books]) -> None:
    network, _ = mined
    keys = [wallet_key(identity.seed) for identity in JURORS]
    by_owner = {address_of(key): key for key in keys}
    show("register", network.enroll(CULPRIT, POSTER))
    for identity, key in zip(JURORS, keys, strict=True):
        network.enroll(identity, key)
    network.pass_time(network.wiring.probation)
    for identity in (CULPRIT, *JURORS):
        network.gas("NodeRegistry", "activate", identity.public_key)
    accuser = wallet_key(bytes([1]) * 32)
    network.gas("CreditToken", "transfer", address_of(accuser), 5_000)
    network.gas("CreditToken", "approve", network.at["SlashCourt"], 2**255, key=accuser)
    case = (KEY, bytes([1]) * 32, 60)
    show("accuse", network.gas("SlashCourt", "accuse", *case, key=accuser))
    show("dispute", network.gas("SlashCourt", "dispute", 1))
    network.gas("CreditToken", "transfer", address_of(accuser), 1)  # the draw block and one more
    network.gas("CreditToken", "transfer", address_of(accuser), 1)
    show("draw", network.gas("SlashCourt", "draw", 1))
    (seats,) = network.ask("SlashCourt", "jurorsOf", 1)
    votes = [network.gas("SlashCourt", "vote", 1, True, key=by_owner[who]) for who, _ in seats]
    show("vote of a juror, at most", max(votes))
    show("rule (7 jurors paid, slashed)", network.gas("SlashCourt", "rule", 1))
    undisputed = (KEY, bytes([2]) * 32, 20)
    network.gas("SlashCourt", "accuse", *undisputed, key=accuser)
    network.pass_time(network.wiring.dispute_window)
    show("close (undisputed, slashed)", network.gas("SlashCourt", "close", 2))
    pair = two(*receipts(calibration=300))
    size = len(pair[1])
    show(
        f"equivocation, receipts of {size} bytes", network.gas("SlashCourt", "equivocation", *pair)
    )
    identity = JURORS[0]
    seals = two(SEAL, SEAL.__class__(subject=SEAL.subject, digest=bytes(32)), identity, identity)
    show("equivocation, seals", network.gas("SlashCourt", "equivocation", *seals))


def test_governance(mined: tuple[Mined, Books]) -> None:
    network, books = mined
    place, past = books.epochs[3].place(0), books.epochs[1].place(0)
    targets, payloads = [network.at[DENY[0]]], [DENY[1]]
    actions = (targets, payloads, "Deny a model: see the discussion.")
    show("propose (depth 10)", network.gas("Governance", "propose", actions, place, past))
    network.pass_time(network.wiring.voting_delay)
    show("vote (1 proof)", network.gas("Governance", "vote", 1, FOR, place, past))
    network.pass_time(network.wiring.voting_period)
    show("queue", network.gas("Governance", "queue", 1, targets, payloads))
    network.pass_time(network.wiring.timelock_delay)
    show("execute (setModel)", network.gas("Governance", "execute", 1, targets, payloads))
    # A span that begins within the books: two proofs.
    network.gas("CreditLedger", "post", 4, books.book({(KEY, 0): [10**6]}).header())
    network.gas("CreditLedger", "post", 5, books.book({(KEY, 0): [10**6]}).header())
    network.pass_time(network.wiring.window)
    place, past = books.epochs[5].place(0), books.epochs[2].place(0)
    network.gas("Governance", "propose", actions, place, past)
    network.pass_time(network.wiring.voting_delay)
    show("vote (2 proofs, depth 10)", network.gas("Governance", "vote", 2, FOR, place, past))
