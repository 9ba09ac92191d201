"""The chain as the coordinator uses it: one ledger contract, one wallet, one outbox.

Epochs go into the ledger, rounds of the lottery into notes beside it: transactions from the poster
to itself that only carry a text. The local chain mines a block for each transaction and none by
itself, so there the block that decides a round is the one that holds its root (a lag of 0, said in
the anchor). On a chain that others mine the lag is 1: its root is public before that block is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from sqlalchemy import Engine

from assay_contracts.adapters.backend import SequencedChain
from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.adapters.offers import Call, FeeBounds
from assay_contracts.adapters.outbox import Outbox, Request, Settlement
from assay_contracts.adapters.outbox_core import Alarm, Item, Patience, Place
from assay_contracts.adapters.rpc_chain import RpcChain
from assay_contracts.adapters.wallet import Wallet, show_address
from assay_contracts.credit import ledger_abi
from assay_contracts.deploy.deployment_record import Record
from assay_contracts.deploy.ledger import CreditLedgerClient, Deployment
from assay_contracts.deploy.plan import LOCAL, Parameters
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, poster_key
from assay_contracts.local.sealed import SealGuard
from assay_coordinator.adapters.epoch_call import epoch_call
from assay_coordinator.core.events import EpochPosted, PostEpoch, PostRound, RoundMined
from assay_network.logs import get_logger
from assay_protocol.errors import AssayError
from assay_protocol.lottery import AnchorNote
from assay_protocol.signing import Identity

EPOCHS_LANE: Final = "epochs"
NOTE_BYTES_MAX: Final = 1_024
CONFIRMATIONS: Final = 12  # of a chain that others mine, unless the operator says otherwise

log = get_logger("anchor")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteChain:
    """A chain that others mine, and what was deployed there."""

    url: str
    record: Record
    confirmations: int = CONFIRMATIONS
    fees: FeeBounds = field(default_factory=FeeBounds)


class Anchor:
    """Posts epochs and rounds exactly once; `run` must run beside it."""

    def __init__(
        self,
        chain: SequencedChain,
        deployment: Deployment,
        wallet: Wallet,
        engine: Engine,
        patience: Patience,
        local: LocalChain | None = None,
    ) -> None:
        self.chain, self.deployment, self.local = chain, deployment, local
        self.lag = 1 if patience.has_pool else 0
        self._wallet = wallet
        self.outbox = Outbox(
            engine,
            chain,
            wallet,
            patience,
            probes={"epoch": self._is_posted},
            on_alarm=_log_alarm,
        )

    async def run(self) -> NoReturn:
        await self.outbox.run()

    async def submit(self, effect: PostEpoch | PostRound) -> None:
        """Durable when it returns; the same again is nothing. Raises AssayError: try again."""
        if isinstance(effect, PostEpoch):
            await self.outbox.submit(self._epoch(effect))
            return
        note = AnchorNote(effect.chain, effect.links, self.lag, effect.anchor)
        await self._note(f"anchor-{effect.chain}", note.encode())
        await self._note(f"round-{effect.number}", effect.note, self.lag)

    async def is_final(self, epoch: int) -> bool:
        """Whether the epoch can be claimed from."""
        call = ledger_abi.is_final_call(epoch)
        return ledger_abi.decode_flag(await self.chain.call(self.deployment.address, call))

    async def settled(self, effect: PostEpoch | PostRound) -> EpochPosted | RoundMined:
        """Waits until what was submitted is on chain to stay. Raises AssayError: ask again."""
        if isinstance(effect, PostEpoch):
            await self.outbox.settled(f"epoch-{effect.epoch}")
            return EpochPosted(effect.epoch)
        anchored = _place(await self.outbox.settled(f"anchor-{effect.chain}"))
        posted = _place(await self.outbox.settled(f"round-{effect.number}"))
        later = await self.chain.block(posted.block + self.lag)
        if later is None:
            raise AssayError("chain_unavailable", f"block {posted.block + self.lag} is not there")
        return RoundMined(
            effect.number,
            anchored.transaction,
            posted.transaction,
            later.number,
            later.hash,
        )

    async def post(self, effect: PostEpoch | PostRound) -> EpochPosted | RoundMined:
        """Both at once, where `run` does not run and the chain mines at once."""
        await self.submit(effect)
        await self.outbox.pump()
        return await self.settled(effect)

    async def newest_posted(self) -> int:
        """The newest epoch that was posted and is still in its block, voided or not; 0: none."""
        item = await self.outbox.last_final(EPOCHS_LANE)
        return 0 if item is None else ledger_abi.posted_by(item.call.data)[0]

    def _epoch(self, effect: PostEpoch) -> Request:
        call = epoch_call(self.deployment.address, effect)
        name = f"epoch-{effect.epoch}"
        return Request(key=name, call=call, kind="epoch", lane=EPOCHS_LANE, keep=True)

    async def _note(self, name: str, text: bytes, lag: int = 0) -> None:
        if len(text) > NOTE_BYTES_MAX:
            raise AssayError("oversized", "a note of this length is not taken")
        call = Call(self._wallet.address, text)
        await self.outbox.submit(Request(key=name, call=call, kind="note", lag=lag, keep=True))

    async def _is_posted(self, item: Item) -> bool:
        """Whether the contract holds exactly this epoch; chain_mismatch if it holds another."""
        epoch, root, total, leaves = ledger_abi.posted_by(item.call.data)
        head = await self.chain.call(self.deployment.address, ledger_abi.head_call())
        if epoch > ledger_abi.decode_number(head):
            return False
        output = await self.chain.call(self.deployment.address, ledger_abi.epochs_call(epoch))
        posted = ledger_abi.decode_epoch(output)
        if posted is None:
            return False
        if (posted.root, posted.total_cum, posted.leaves) != (root, total, leaves):
            raise AssayError("chain_mismatch", f"epoch {epoch} is posted with another root")
        return True

    def close(self) -> None:
        if self.local is not None:
            self.local.close()


def local_anchor(
    path: Path, identity: Identity, engine: Engine, parameters: Parameters = LOCAL
) -> Anchor:
    """Opens or creates the chain at `path` and deploys what is not there, with `parameters`.

    Its blocks are sealed by `identity` and kept in `engine`'s database as well. Synchronous.
    """
    key = poster_key(identity.seed)
    wallet = Wallet(key)
    chain = LocalChain.open(
        path, genesis=Genesis(poster=wallet.address), signer=identity, guard=SealGuard(engine)
    )
    try:
        client = CreditLedgerClient(chain, key, identity.public_key, parameters)
        return Anchor(EmbeddedChain(chain), client.deploy(), wallet, engine, Patience(), chain)
    except BaseException:
        chain.close()
        raise


def remote_anchor(remote: RemoteChain, identity: Identity, engine: Engine) -> Anchor:
    """The same on a chain that others mine. Nothing is asked yet: it may be down now.

    Raises AssayError("config_invalid") if its ledger takes epochs from another poster.
    """
    wallet, plan = Wallet(poster_key(identity.seed)), remote.record.plan
    if plan.poster != wallet.address:
        poster = show_address(wallet.address)
        raise AssayError("config_invalid", f"the deployment is not for this poster, {poster}")
    chain = RpcChain(remote.url, chain_id=plan.chain_id)
    patience = Patience(
        confirmations=remote.confirmations, has_pool=chain.has_pool, fees=remote.fees
    )
    ledgers = [plan.addresses[ledger_abi.CONTRACT], *(s.address for s in remote.record.successors)]
    contracts = plan.addresses | {ledger_abi.CONTRACT: ledgers[-1]}
    deployment = Deployment(plan.chain_id, ledgers[-1], wallet.address, contracts)
    return Anchor(chain, deployment, wallet, engine, patience)


def _place(settlement: Settlement) -> Place:
    if settlement.place is None:
        raise AssayError("contract_refused", settlement.reason)
    return settlement.place


def _log_alarm(alarm: Alarm) -> None:
    log.error("not_posted", code=alarm.code, what=alarm.key, detail=alarm.detail)
