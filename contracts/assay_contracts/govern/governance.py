"""The contract Governance and what it governs, read and written from anywhere: proposals, votes.

Everything is read from the chain by one address, that of Governance: it names token, node registry
and timelock, and the token names the ledger of the day. What a proposal would do is found in its
own event; its block is the one whose time is the proposal's start less the delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from assay_contracts import calls
from assay_contracts.adapters.backend import Chain
from assay_contracts.govern.ballots import Ballot, Proven
from assay_contracts.govern.proposals import Action
from assay_contracts.records import ContractRefused
from assay_protocol.credit_tree import fold
from assay_protocol.errors import AssayError

STATES: Final = (
    "none",
    "pending",
    "active",
    "defeated",
    "succeeded",
    "queued",
    "executed",
    "expired",
)
SUPPORT: Final = {"against": 0, "for": 1, "abstain": 2}
FINAL_AHEAD_MAX: Final = 64  # epochs that a proposal settles itself
SAME_TIME_MAX: Final = 256  # blocks of one second
NO_PLACE: Final = ((bytes(32), 0, 0, 0, bytes(32)), 0, b"")  # of a leaf that was not there yet


@dataclass(frozen=True, slots=True)
class Terms:
    """What this governance was made with. Addresses; epochs; seconds; shares in bps."""

    token: bytes
    registry: bytes
    timelock: bytes
    span: int
    delay: int
    period: int
    quorum_bps: int
    proposer_bps: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """One proposal now; weights in micro-credits, times in seconds since 1970."""

    id: int
    state: str
    ledger: bytes
    epoch_now: int
    epoch_then: int
    starts_at: int
    ends_at: int
    earned: int
    quorum: int
    yes: int
    no: int
    abstained: int
    executable_from: int  # 0: not queued


@dataclass(frozen=True, slots=True)
class Text:
    """What a proposal would do, as it was proposed."""

    proposer: bytes
    targets: tuple[bytes, ...]
    payloads: tuple[bytes, ...]
    description: str


class Governance:
    """One Governance contract at `address`."""

    def __init__(self, chain: Chain, address: bytes) -> None:
        self.chain, self.address = chain, address

    async def terms(self) -> Terms:
        names = ("token", "registry", "timelock", "span", "delay", "period")
        values = [await self._ask(name) for name in (*names, "quorumBps", "proposerBps")]
        return Terms(*values)

    async def count(self) -> int:
        number: int = await self._ask("proposalCount")
        return number

    async def proposal(self, number: int) -> Proposal:
        """Raises AssayError("config_invalid") if there is none of that number."""
        state = STATES[await self._ask("state", number)]
        if state == "none":
            raise AssayError("config_invalid", f"there is no proposal {number}")
        told = await self._call("proposals", number)
        ledger, epoch_now, epoch_then, start, _, earned, yes, no, abstained = told
        return Proposal(
            id=number,
            state=state,
            ledger=ledger,
            epoch_now=epoch_now,
            epoch_then=epoch_then,
            starts_at=start,
            ends_at=start + await self._ask("period"),
            earned=earned,
            quorum=await self._ask("quorumOf", number),
            yes=yes,
            no=no,
            abstained=abstained,
            executable_from=await self._ask("executableFrom", number),
        )

    async def text(self, proposal: Proposal) -> Text:
        """Out of the event it was proposed by. Raises AssayError("chain_unavailable") if the chain
        does not have that block any more."""
        made_at = proposal.starts_at - await self._ask("delay")
        number = await self._first_block(made_at)
        for _ in range(SAME_TIME_MAX):
            block = await self.chain.block(number)
            if block is None or block.timestamp != made_at:
                break
            for log in await self.chain.logs(block.hash, (self.address,)):
                name, values = calls.events("Governance", log)
                if name == "Proposed" and values["id"] == proposal.id:
                    return Text(
                        values["proposer"],
                        tuple(values["targets"]),
                        tuple(values["payloads"]),
                        values["description"],
                    )
            number += 1
        raise AssayError("chain_unavailable", f"the event of proposal {proposal.id} is not there")

    async def ledger(self) -> bytes:
        """Of the day: whoever may mint."""
        minter: bytes = await self._of((await self.terms()).token, "CreditToken", "minter")
        return minter

    async def next_span(self) -> tuple[int, int]:
        """The epochs that a proposal made now would count between. Raises
        AssayError("config_invalid") while no epoch is final."""
        ledger = await self.ledger()
        newest: int = await self._of(ledger, "CreditLedger", "finalHead")
        for _ in range(FINAL_AHEAD_MAX):
            if not await self._of(ledger, "CreditLedger", "isFinal", newest + 1):
                break
            newest += 1
        if not newest:
            raise AssayError("config_invalid", "no epoch is final yet: nobody has a vote")
        span: int = await self._ask("span")
        return newest, max(0, newest - span)

    async def payee(self, account: bytes) -> bytes:
        """Who votes for `account`; zeros: nobody yet."""
        registry = (await self.terms()).registry
        found: bytes = await self._of(registry, "NodeRegistry", "payeeOf", account)
        return found

    async def has_voted(self, number: int, ballot: Ballot) -> bool:
        leaf = ballot.now.leaf
        return bool(await self._ask("hasVoted", number, leaf.account, leaf.role))

    async def check(self, ledger: bytes, epoch: int, proven: Proven) -> None:
        """Raises AssayError("proof_invalid") if the proof does not lead to the epoch's root."""
        root, total, *_ = await self._of_all(ledger, "CreditLedger", "epochs", epoch)
        leaf = proven.leaf
        if fold(leaf.hash, leaf.cumulative, proven.index, proven.proof) != (root, total):
            raise AssayError("proof_invalid", f"the leaf file of epoch {epoch} is not the chain's")

    # ---- what is sent ----

    def propose_call(
        self, actions: Sequence[tuple[bytes, Action]], description: str, ballot: Ballot
    ) -> bytes:
        """`actions` with the address each is sent to; `ballot` shows that the sender may."""
        targets = tuple(address for address, _ in actions)
        payloads = tuple(action.data for _, action in actions)
        places = (place_of(ballot.now), place_of(ballot.before))
        return calls.encode("Governance", "propose", (targets, payloads, description), *places)

    def vote_call(self, number: int, support: str, ballot: Ballot) -> bytes:
        places = (place_of(ballot.now), place_of(ballot.before))
        return calls.encode("Governance", "vote", number, SUPPORT[support], *places)

    def queue_call(self, number: int, text: Text) -> bytes:
        return calls.encode("Governance", "queue", number, text.targets, text.payloads)

    def execute_call(self, number: int, text: Text) -> bytes:
        return calls.encode("Governance", "execute", number, text.targets, text.payloads)

    # ---- within ----

    async def _first_block(self, at: int) -> int:
        """The number of the first block whose time is `at` or later."""
        low, high = 0, (await self.chain.head()).number
        while low < high:
            middle = (low + high) // 2
            block = await self.chain.block(middle)
            if block is None:
                raise AssayError("chain_unavailable", f"block {middle} is not there")
            low, high = (low, middle) if block.timestamp >= at else (middle + 1, high)
        return low

    async def _ask(self, function: str, *arguments: object) -> Any:
        return (await self._call(function, *arguments))[0]

    async def _call(self, function: str, *arguments: object) -> tuple[Any, ...]:
        return await self._of_all(self.address, "Governance", function, *arguments)

    async def _of(self, to: bytes, contract: str, function: str, *arguments: object) -> Any:
        return (await self._of_all(to, contract, function, *arguments))[0]

    async def _of_all(
        self, to: bytes, contract: str, function: str, *arguments: object
    ) -> tuple[Any, ...]:
        data = calls.encode(contract, function, *arguments)
        try:
            return calls.decode(contract, function, await self.chain.call(to, data))
        except ContractRefused as refused:
            raise calls.explained(refused) from None


def place_of(proven: Proven | None) -> tuple[Any, ...]:
    """The contracts' struct Place."""
    if proven is None:
        return NO_PLACE
    leaf = proven.leaf
    proof = b"".join(sibling + amount.to_bytes(16) for sibling, amount in proven.proof)
    plain = (leaf.account, leaf.role, leaf.cumulative, leaf.epoch_credit, leaf.receipts_root)
    return plain, proven.index, proof
