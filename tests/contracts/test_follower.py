"""What a follower tells is the chain's history at every moment, through forks of any kind."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.adapters.follower import Change, Follower
from assay_contracts.adapters.follower_core import KEPT_MAX, Mark
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis
from assay_contracts.records import Block, Log
from assay_protocol.errors import AssayError
from contracts.rpc_node import RpcNode
from contracts.test_outbox import DEPLOYED, KEY

ADDRESS = b"\x0c" * 20


class Ledger:
    """A chain of headers: each block's one event carries its own hash."""

    def __init__(self) -> None:
        self.listed: list[Block] = []
        self.salt = 0
        self.fails = 0
        self.extend(1)

    def extend(self, count: int) -> None:
        for _ in range(count):
            number = len(self.listed)
            parent = self.listed[-1].hash if self.listed else bytes(32)
            name = hashlib.sha256(parent + self.salt.to_bytes(4)).digest()
            self.listed.append(Block(number, name, parent, bytes(32), 0, 0, 0, 0, ()))

    def fork(self, depth: int, count: int) -> None:
        del self.listed[max(1, len(self.listed) - depth) :]
        self.salt += 1
        self.extend(count)

    def _fail(self) -> None:
        if self.fails:
            self.fails -= 1
            raise AssayError("chain_unavailable")

    async def head(self) -> Block:
        return self.listed[-1]

    async def finalized(self) -> Block:
        return self.listed[max(0, len(self.listed) - 3)]

    async def blocks(self, first: int, count: int) -> tuple[Block, ...]:
        self._fail()
        return tuple(self.listed[first : first + count])

    async def logs_of(
        self, names: tuple[bytes, ...], addresses: tuple[bytes, ...]
    ) -> tuple[tuple[Log, ...], ...]:
        self._fail()
        return tuple((Log(ADDRESS, (name,), b""),) for name in names)


class Told:
    """Keeps what is told as a history; a handler that may fail."""

    def __init__(self) -> None:
        self.history: list[Mark] = []
        self.fails = 0

    async def __call__(self, change: Change) -> None:
        if self.fails:
            self.fails -= 1
            raise AssayError("storage_failed")
        if change.applied:
            assert [log.topics[0] for log in change.logs] == [change.mark.hash]
            self.history.append(change.mark)
        else:
            assert self.history.pop() == change.mark


async def poll(follower: Follower) -> None:
    for _ in range(8):
        with suppress(AssayError):
            await follower.poll()
            return
    raise AssertionError("it never gets through")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["extend", "fork", "restart", "fail", "refuse"]),
        st.integers(0, 40),
        st.integers(0, 90),
    ),
    max_size=20,
)


@given(st.integers(0, 5), STEPS)
def test_the_told_history_is_the_chain_s(start: int, steps: list[tuple[str, int, int]]) -> None:
    async def play() -> None:
        chain, told = Ledger(), Told()
        follower = Follower(chain, (ADDRESS,), told, start=start)  # type: ignore[arg-type]
        for what, depth, count in steps:
            if what == "extend":
                chain.extend(count)
            elif what == "fork":
                chain.fork(depth, count)
            elif what == "restart":
                follower = Follower(
                    chain,
                    (ADDRESS,),
                    told,
                    start=start,
                    kept=follower.kept,  # type: ignore[arg-type]
                )
            elif what == "fail":
                chain.fails = depth % 3
            else:
                told.fails = depth % 3
            await poll(follower)
            wanted = [Mark(b.number, b.hash) for b in chain.listed[start:]]
            assert told.history == wanted
            assert list(follower.kept) == wanted[-KEPT_MAX:]

    trio.run(play)


async def test_a_fork_deeper_than_what_is_kept_is_said_and_not_guessed() -> None:
    chain, told = Ledger(), Told()
    follower = Follower(chain, (ADDRESS,), told)  # type: ignore[arg-type]
    chain.extend(KEPT_MAX + 10)
    await poll(follower)
    before = list(told.history)
    chain.fork(KEPT_MAX + 5, KEPT_MAX + 20)
    with pytest.raises(AssayError) as caught:
        await follower.poll()
    assert caught.value.code == "chain_mismatch"
    assert told.history == before


async def test_only_what_is_final_is_told_if_asked() -> None:
    chain, told = Ledger(), Told()
    follower = Follower(chain, (ADDRESS,), told, finalized=True)  # type: ignore[arg-type]
    chain.extend(9)
    await poll(follower)
    assert told.history[-1].number == 7


async def test_the_embedded_chain_tells_the_ledger_s_events(
    chain: LocalChain, ledger: CreditLedgerClient
) -> None:
    changes: list[Change] = []

    async def keep(change: Change) -> None:
        changes.append(change)

    follower = Follower(EmbeddedChain(chain), (ledger.address,), keep, start=DEPLOYED)
    for epoch in (1, 2):
        ledger.post(epoch, Header(bytes([epoch]) * 32, 50, 9, 3, bytes(32), bytes(32)))
        await follower.poll()
    told = [(change.mark.number - DEPLOYED, len(change.logs)) for change in changes]
    assert told == [(0, 0), (1, 1), (2, 1)]
    assert [int.from_bytes(change.logs[0].topics[1]) for change in changes[1:]] == [1, 2]


async def test_a_real_fork_behind_json_rpc_is_taken_back(tmp_path: Path) -> None:
    node = RpcNode(tmp_path, Genesis(Wallet(KEY).address))
    history: list[Mark] = []

    async def keep(change: Change) -> None:
        if change.applied:
            history.append(change.mark)
        else:
            assert history.pop() == change.mark

    follower = Follower(node.rpc(), (ADDRESS,), keep)
    for depth, other in ((0, 3), (2, 4), (4, 1)):
        node.go_back(depth, other=other)
        await follower.poll()
        chain = node.chain
        blocks = [chain.block(number) for number in range(chain.head_block().number + 1)]
        assert history == [Mark(block.number, block.hash) for block in blocks if block]
    node.close()
