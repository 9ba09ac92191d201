"""Bonds as the registry has them, and what `finalized` means while they come and go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay_contracts.follow.block_sources import About, blocks_of
from assay_contracts.follow.block_votes import BlockVotes
from assay_contracts.follow.bonds import Bonds
from assay_contracts.follow.finality import TARGET_US
from assay_contracts.follow.following import Follower, open_followed
from assay_contracts.local.chain import LocalChain
from assay_contracts.rpc.server import Answers
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError
from assay_protocol.messages import FinalityProof, SealedBlock
from assay_protocol.seals import seal_block
from contracts.bonded_chain import GENESIS, NODES, POSTER, PRODUCER, BondedChain


class Micros:
    now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def bonded(tmp_path: Path) -> Iterator[BondedChain]:
    made = BondedChain(tmp_path / "chain.db")
    made.deploy()
    yield made
    made.chain.close()


def vote(votes: BlockVotes, chain: LocalChain, node: int) -> int | None:
    number = votes.target()
    assert number is not None
    block = chain.block(number)
    assert block is not None
    seal = seal_block(NODES[node], chain.chain_id, number, block.hash)
    return votes.vote(NODES[node].public_key, seal)


def test_bonds_are_those_of_the_block(bonded: BondedChain) -> None:
    bonds = Bonds(bonded.chain)
    assert bonds.at(0) == bonds.at(bonded.chain.head_block().number) == {}
    first = bonded.bond(NODES[0], 300)
    second = bonded.bond(NODES[1], 200)
    slashed = bonded.slash(NODES[1], 50)
    gone = bonded.leave(NODES[0])
    last = bonded.idle(3)
    one, two = NODES[0].public_key, NODES[1].public_key
    wanted = {
        first - 1: {},
        first: {one: 300},
        second: {one: 300, two: 200},
        slashed: {one: 300, two: 150},
        gone: {two: 150},
        last: {two: 150},
    }
    for number in (*wanted, *reversed(wanted)):
        assert bonds.at(number) == wanted[number], number
        assert Bonds(bonded.chain).at(number) == wanted[number], number
    assert Bonds(bonded.chain).last_without(last, 0) == first - 1
    assert Bonds(bonded.chain).last_without(last, first) == first
    gone = bonded.leave(NODES[1])
    assert Bonds(bonded.chain).last_without(bonded.idle(), 0) == gone + 1


def test_the_head_is_final_while_nobody_has_a_bond(bonded: BondedChain) -> None:
    votes = BlockVotes(bonded.chain)
    for _ in range(2):
        head = bonded.idle()
        assert bonded.chain.finalized_block().number == head
        assert votes.target() is None
    with pytest.raises(AssayError, match="no block was voted final"):
        votes.proof()


def test_votes_make_a_block_final_and_it_stays_so(bonded: BondedChain, tmp_path: Path) -> None:
    chain, clock = bonded.chain, Micros()
    votes = BlockVotes(chain, clock)
    for node in range(3):
        joined = bonded.bond(NODES[node], 100)
    before = votes.finalized()
    assert before == joined - 5, "the last block without a bond"
    assert vote(votes, chain, 0) is None
    assert vote(votes, chain, 1) is None
    assert votes.finalized() == before
    assert votes.weight() == (200, 300)
    assert vote(votes, chain, 2) == joined == votes.finalized()
    proof = decode_as(FinalityProof, votes.proof())
    assert (proof.number, proof.bonded, len(proof.seals)) == (joined, 300, 3)

    assert votes.target() is None, "the head is final"
    head = bonded.idle()
    assert votes.target() == head
    bonded.idle()
    assert votes.target() == head, "votes meet at one block"
    clock.now += TARGET_US
    assert votes.target() == head + 1, "but not for ever"
    again = BlockVotes(chain, clock)
    assert again.finalized() == joined, "a restart takes nothing back"
    asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber"}
    answer: Any = Answers(chain).all(asked | {"params": ["finalized", False]})
    assert answer["result"]["number"] == hex(joined)


def test_a_restart_before_any_proof_finds_what_was_final(bonded: BondedChain) -> None:
    first = bonded.bond(NODES[0], 300)
    bonded.bond(NODES[1], 200)
    bonded.idle(2)
    assert BlockVotes(bonded.chain).finalized() == first - 1


def test_when_all_bonds_are_gone_the_head_is_final_again(bonded: BondedChain) -> None:
    votes = BlockVotes(bonded.chain)
    bonded.bond(NODES[0], 300)
    assert votes.finalized() < bonded.chain.head_block().number
    left = bonded.leave(NODES[0])
    assert votes.finalized() == left
    bonded.bond(NODES[1], 300)
    assert votes.finalized() >= left, "finality never goes back"


def test_a_node_without_a_bond_has_no_vote(bonded: BondedChain) -> None:
    votes = BlockVotes(bonded.chain)
    bonded.bond(NODES[0], 300)
    with pytest.raises(AssayError, match="forbidden"):
        vote(votes, bonded.chain, 1)


def test_a_follower_checks_the_proof_against_bonds_it_executed(
    bonded: BondedChain, tmp_path: Path
) -> None:
    votes = BlockVotes(bonded.chain)
    for node in range(2):
        bonded.bond(NODES[node], 100)
        final = [vote(votes, bonded.chain, n) for n in range(node + 1)]
    bonded.idle()
    about = About(GENESIS.chain_id, POSTER, PRODUCER.public_key, 99)

    class Source:
        proof: bytes | None = votes.proof()

        def about(self) -> About:
            return about

        def blocks(self, first: int, count: int) -> list[SealedBlock]:
            return blocks_of(bonded.chain, first, count)

        def finality(self) -> bytes | None:
            return self.proof

        def close(self) -> None: ...

    source = Source()
    with open_followed(tmp_path / "mine", about) as mine:
        follower = Follower(mine, source)
        follower.to_head()
        assert follower.finality() == final[-1]
        proof = decode_as(FinalityProof, votes.proof())
        source.proof = encode(replace(proof, seals=proof.seals[:1]))
        with pytest.raises(AssayError, match="two thirds"):
            follower.finality()
        source.proof = b"\xff"
        with pytest.raises(AssayError, match="malformed"):
            follower.finality()
        source.proof = None
        assert follower.finality() is None
