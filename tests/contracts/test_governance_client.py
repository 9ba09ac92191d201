"""Governance read and written by one address: what is proposed is found again, and voted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from assay_contracts import calls
from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.adapters.offers import Call
from assay_contracts.adapters.transact import transact
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.deploy.plan import LOCAL
from assay_contracts.ed25519_hints import signed
from assay_contracts.govern.ballots import Ballot, ballots
from assay_contracts.govern.governance import Governance, Proposal
from assay_contracts.govern.model_registry import read_entries
from assay_contracts.govern.proposals import Entry, Wish, actions_of, read_action
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_protocol.credit_tree import CreditLeaf
from assay_protocol.errors import AssayError
from assay_protocol.leaf_file import LeafFile, encode_leaves
from assay_protocol.signing import Identity
from contracts.conftest import Clock

KEY = poster_key(bytes(range(32)))
SEED, OTHER = b"\x21" * 32, b"\x22" * 32
ACCOUNT, SECOND = Identity(SEED).public_key, Identity(OTHER).public_key
MODEL = b"m" * 32
QUICK = replace(
    LOCAL,
    window=10,
    demand_seconds=10,
    voting_delay=20,
    voting_period=100,
    timelock_delay=30,
    span=1,
)


@dataclass
class Ruled:
    """A chain with the eight contracts, two voters, and two final epochs."""

    local: LocalChain
    clock: Clock

    def __post_init__(self) -> None:
        self.chain = EmbeddedChain(self.local)
        self.ledger = CreditLedgerClient(self.local, KEY, parameters=QUICK)
        self.at = self.ledger.deploy().contracts
        self.governance = Governance(self.chain, self.at["Governance"])
        self.files: dict[int, LeafFile] = {}
        self._post(1, {ACCOUNT: 30, SECOND: 10})
        self._post(2, {ACCOUNT: 40, SECOND: 12})
        for seed in (SEED, OTHER):
            self._bind(seed)
        self.clock.now += 100  # a block is a second later than the one before, at least

    def _post(self, epoch: int, credit: dict[bytes, int]) -> None:
        before = self.files.get(epoch - 1)
        leaves = [
            CreditLeaf(
                account, 0, total, total - (before.leaf(i).cumulative if before else 0), MODEL
            )
            for i, (account, total) in enumerate(credit.items())
        ]
        file = LeafFile(encode_leaves(epoch, (leaf.encode() for leaf in leaves)))
        root, total = file.root()
        header = Header(
            root=root,
            total_cum=total,
            jobs=1,
            leaves=file.count,
            data_hash=file.digest,
            policy=bytes(32),
        )
        self.ledger.post(epoch, header)
        self.files[epoch] = file

    def _bind(self, seed: bytes) -> None:
        wallet, identity = Wallet.of_seed(seed), Identity(seed)
        head = b"assay/1/Bind\0" + self.local.chain_id.to_bytes(32)
        message = head + self.at["NodeRegistry"] + wallet.address + bytes(32)
        arguments = (identity.public_key, wallet.address, signed(identity, message))
        data = calls.encode("NodeRegistry", "bind", *arguments)
        self.local.send(KEY, self.at["NodeRegistry"], data)

    def ballot(self, account: bytes) -> Ballot:
        [found] = ballots(account, self.files[2], self.files[1])
        return found

    async def send(self, seed: bytes, data: bytes) -> None:
        await transact(self.chain, Wallet.of_seed(seed), Call(self.governance.address, data))

    async def propose(self, wish: Wish, why: str = "why") -> Proposal:
        found = actions_of(wish, await self.entries(), is_open=True)
        actions = [(self.at[one.contract], one) for one in found]
        await self.send(SEED, self.governance.propose_call(actions, why, self.ballot(ACCOUNT)))
        return await self.governance.proposal(await self.governance.count())

    async def entries(self) -> dict[bytes, Entry]:
        at = self.local.head_block().number
        return await read_entries(self.chain, self.at["ModelRegistry"], at)

    async def state(self, number: int) -> str:
        return (await self.governance.proposal(number)).state


@pytest.fixture
def ruled(tmp_path: Path, clock: Clock) -> Iterator[Ruled]:
    genesis = Genesis(address_of(KEY))
    with LocalChain.open(tmp_path / "chain.db", genesis=genesis, clock=clock) as local:
        yield Ruled(local, clock)


async def test_from_words_to_what_the_registry_says(ruled: Ruled) -> None:
    governance = ruled.governance
    assert await governance.next_span() == (2, 1)
    proposal = await ruled.propose(Wish(deny=(MODEL,), min_bond=LOCAL.min_bond_low))
    assert (proposal.state, proposal.earned, proposal.epoch_now, proposal.epoch_then) == (
        "pending",
        12,
        2,
        1,
    )
    text = await governance.text(proposal)
    words = [str(read_action(payload)) for payload in text.payloads]
    assert words == [
        f"deny model {MODEL.hex()}",
        f"least bond {LOCAL.min_bond_low} micro-credits",
    ]
    assert (text.description, text.proposer) == ("why", Wallet.of_seed(SEED).address)
    ruled.clock.now = proposal.starts_at  # time passes though no block is made
    assert await ruled.state(1) == "active"
    await ruled.send(SEED, governance.vote_call(1, "for", ruled.ballot(ACCOUNT)))
    await ruled.send(OTHER, governance.vote_call(1, "against", ruled.ballot(SECOND)))
    voted = await governance.proposal(1)
    assert (voted.yes, voted.no, voted.abstained) == (10, 2, 0)
    assert await governance.has_voted(1, ruled.ballot(ACCOUNT))
    ruled.clock.now = proposal.ends_at
    assert await ruled.state(1) == "succeeded"
    await ruled.send(OTHER, governance.queue_call(1, text))
    queued = await governance.proposal(1)
    assert queued.state == "queued"
    with pytest.raises(AssayError, match="contract_refused"):
        await ruled.send(OTHER, governance.execute_call(1, text))
    ruled.clock.now = queued.executable_from
    await ruled.send(OTHER, governance.execute_call(1, text))
    assert await ruled.state(1) == "executed"
    assert await ruled.entries() == {MODEL: Entry(False)}


async def test_each_proposal_is_found_by_its_own_block(ruled: Ruled) -> None:
    made = []
    for number in range(1, 6):
        ruled.clock.now += number % 2  # some in one second, as far as blocks allow
        made.append(await ruled.propose(Wish(open=bool(number % 2)), f"number {number}"))
    for number, proposal in enumerate(made, 1):
        text = await ruled.governance.text(proposal)
        assert text.description == f"number {number}"


async def test_one_votes_once_and_only_for_itself(ruled: Ruled) -> None:
    proposal = await ruled.propose(Wish(open=False))
    ruled.clock.now = proposal.starts_at
    vote = ruled.governance.vote_call(1, "for", ruled.ballot(ACCOUNT))
    with pytest.raises(AssayError, match="NotPayee"):
        await ruled.send(OTHER, vote)
    await ruled.send(SEED, vote)
    with pytest.raises(AssayError, match="AlreadyVoted"):
        await ruled.send(SEED, vote)
    assert await ruled.governance.payee(ACCOUNT) == Wallet.of_seed(SEED).address
    assert await ruled.governance.payee(bytes(32)) == bytes(20)


async def test_another_leaf_file_is_noticed(ruled: Ruled) -> None:
    ledger = await ruled.governance.ledger()
    ballot = ruled.ballot(ACCOUNT)
    await ruled.governance.check(ledger, 2, ballot.now)
    leaf = replace(ballot.now.leaf, cumulative=ballot.now.leaf.cumulative + 1)
    with pytest.raises(AssayError, match="proof_invalid"):
        await ruled.governance.check(ledger, 2, replace(ballot.now, leaf=leaf))
    with pytest.raises(AssayError, match="proof_invalid"):
        await ruled.governance.check(ledger, 1, ballot.now)


async def test_what_is_not_there_has_a_name(ruled: Ruled) -> None:
    with pytest.raises(AssayError, match="config_invalid"):
        await ruled.governance.proposal(1)
    terms = await ruled.governance.terms()
    assert (terms.span, terms.delay, terms.period) == (1, 20, 100)
    proposal = await ruled.propose(Wish(open=False))
    with pytest.raises(AssayError, match="chain_unavailable"):
        await ruled.governance.text(replace(proposal, id=9))
