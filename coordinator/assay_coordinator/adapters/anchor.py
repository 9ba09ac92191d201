"""The chain as the coordinator uses it: one local chain, one ledger contract, one outbox."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from assay_contracts.chain import LocalChain
from assay_contracts.genesis import Genesis, address_of, poster_key
from assay_contracts.ledger import CreditLedgerClient
from assay_contracts.ledger_abi import Header
from assay_contracts.outbox import Outbox
from assay_coordinator.adapters.store import storage_errors
from assay_coordinator.core.events import PostEpoch

POLICY_VERSION: Final = bytes(31) + b"\x01"


class Anchor:
    """Posts epochs exactly once. Synchronous; call it in a thread."""

    def __init__(self, path: Path, seed: bytes, engine: Engine) -> None:
        """Open or create the chain at `path` and deploy the ledger if it is not there."""
        key = poster_key(seed)
        self.chain = LocalChain.open(path, genesis=Genesis(poster=address_of(key)))
        self._ledger = CreditLedgerClient(self.chain, key)
        self.deployment = self._ledger.deploy()
        self._outbox = Outbox(engine, self._ledger)

    def post(self, effect: PostEpoch) -> None:
        """Put the epoch on the chain; done already is done. Raises AssayError: try again later."""
        header = Header(
            root=effect.root,
            total_cum=effect.total,
            jobs=effect.jobs,
            leaves=effect.leaves,
            data_hash=effect.data_hash,
            policy=POLICY_VERSION,
        )
        with storage_errors():
            self._outbox.submit(f"epoch-{effect.epoch}", effect.epoch, header)
            self._outbox.pump()

    def close(self) -> None:
        self.chain.close()
