"""Voters with credit in final epochs, before the contract Governance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from assay_contracts import calls
from assay_protocol.signing import Identity
from contracts.books import Books, Place
from contracts.evm import DEPLOYER
from contracts.network_evm import NetworkEvm, registration

GOVERNANCE, MODELS, TIMELOCK = "Governance", "ModelRegistry", "TimelockController"
NONE, PENDING, ACTIVE, DEFEATED, SUCCEEDED, QUEUED, EXECUTED, EXPIRED = range(8)
AGAINST, FOR, ABSTAIN = range(3)
MODEL = bytes([0x4D]) * 32
DENY = ("ModelRegistry", calls.encode("ModelRegistry", "setModel", MODEL, False, []))


@dataclass(frozen=True)
class Voter:
    """An account and the address that its pay goes to."""

    number: int

    @property
    def identity(self) -> Identity:
        return Identity(self.number.to_bytes(32))

    @property
    def account(self) -> bytes:
        return self.identity.public_key

    @property
    def payee(self) -> bytes:
        return bytes([self.number]) * 20


@dataclass
class Electorate:
    """A network with its books. Epochs are 1, 2, ...; `earn` posts one that is final at once."""

    evm: NetworkEvm = field(default_factory=NetworkEvm)
    books: Books = field(default_factory=Books)

    def bind(self, voter: Voter, payee: bytes | None = None) -> None:
        payee = payee or voter.payee
        consent = registration(self.evm, voter.identity, payee, "Bind")
        self.evm.send(DEPLOYER, "NodeRegistry", "bind", voter.account, payee, consent)

    def earn(self, amounts: dict[Voter, int], role: int = 0) -> int:
        return self.earn_as({(voter, role): amount for voter, amount in amounts.items()})

    def earn_as(self, amounts: dict[tuple[Voter, int], int], *, final: bool = True) -> int:
        earned = {(who.account, role): [amount] for (who, role), amount in amounts.items()}
        epoch = len(self.books.epochs)
        header = self.books.book(earned).header()
        self.evm.send(DEPLOYER, "CreditLedger", "post", epoch, header)
        if final:
            self.evm.pass_time(self.evm.wiring.window)
        return epoch

    def place(self, voter: Voter, epoch: int, role: int = 0) -> Place:
        """Where the voter's leaf is in `epoch`; nowhere: something that proves nothing."""
        leaves = self.books.epochs[epoch].leaves
        for index, leaf in enumerate(leaves):
            if (leaf.account, leaf.role) == (voter.account, role):
                return self.books.epochs[epoch].place(index)
        return self.books.epochs[-1].leaves[0], 0, b""

    def ballot(self, voter: Voter, proposal: int = 0, role: int = 0) -> tuple[Place, Place]:
        """The voter's places in the span of a proposal, or of one that were made now."""
        if proposal:
            _, now, then, *_ = self.evm.ask(GOVERNANCE, "proposals", proposal)
        else:
            posted = range(1, len(self.books.epochs))
            final = (e for e in posted if self.evm.ask("CreditLedger", "isFinal", e))
            now = max(final, default=0)
            then = max(0, now - self.evm.wiring.span)
        return self.place(voter, now, role), self.place(voter, then, role)

    def actions(self, *acts: tuple[str, bytes], description: str = "why") -> tuple[Any, ...]:
        targets = [self.evm.at[name] for name, _ in acts]
        return targets, [payload for _, payload in acts], description

    def propose(self, voter: Voter, *acts: tuple[str, bytes]) -> int:
        actions = self.actions(*(acts or (DENY,)))
        found: int = self.evm.send(voter.payee, GOVERNANCE, "propose", actions, *self.ballot(voter))
        return found

    def open(self, voter: Voter, *acts: tuple[str, bytes]) -> int:
        """A proposal that can be voted on."""
        proposal = self.propose(voter, *acts)
        self.evm.pass_time(self.evm.wiring.voting_delay)
        return proposal

    def vote(self, voter: Voter, proposal: int, support: int = FOR, role: int = 0) -> int:
        ballot = self.ballot(voter, proposal, role)
        self.evm.send(voter.payee, GOVERNANCE, "vote", proposal, support, *ballot)
        weight: int = self.evm.events(GOVERNANCE)[0][1]["weight"]
        return weight

    def refused_vote(
        self, voter: Voter, proposal: int, ballot: Any = None, support: int = FOR
    ) -> str:
        ballot = ballot or self.ballot(voter, proposal)
        arguments = (proposal, support, *ballot)
        return self.evm.refused(voter.payee, GOVERNANCE, "vote", *arguments)

    def state(self, proposal: int) -> int:
        found: int = self.evm.ask(GOVERNANCE, "state", proposal)
        return found

    def tally(self, proposal: int) -> tuple[int, int, int]:
        *_, yes, no, abstained = self.evm.ask(GOVERNANCE, "proposals", proposal)
        return yes, no, abstained

    def end(self) -> None:
        """The vote's time passes."""
        self.evm.pass_time(self.evm.wiring.voting_period)

    def carry(self, proposal: int, *acts: tuple[str, bytes]) -> None:
        """Queues what passed, waits, executes."""
        targets, payloads, _ = self.actions(*(acts or (DENY,)))
        self.evm.send(DEPLOYER, GOVERNANCE, "queue", proposal, targets, payloads)
        self.evm.pass_time(self.evm.wiring.timelock_delay)
        self.evm.send(DEPLOYER, GOVERNANCE, "execute", proposal, targets, payloads)


def shared_electorate(make: Callable[[], Electorate]) -> Any:
    """A fixture of what `make` makes once; what a test does to it is undone."""
    made_once = cache(make)

    def electorate() -> Iterator[Electorate]:
        made = made_once()
        epochs = list(made.books.epochs)
        with made.evm.undone():
            yield made
        made.books.epochs[:] = epochs

    return pytest.fixture(electorate, name=make.__name__)
