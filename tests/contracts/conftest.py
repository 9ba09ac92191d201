from collections.abc import Iterator
from pathlib import Path

import pytest

from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key

KEY = poster_key(bytes(range(32)))


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def chain_path(tmp_path: Path) -> Path:
    return tmp_path / "chain.sqlite"


@pytest.fixture
def chain(chain_path: Path, clock: Clock) -> Iterator[LocalChain]:
    with LocalChain.open(chain_path, genesis=Genesis(address_of(KEY)), clock=clock) as opened:
        yield opened


@pytest.fixture
def ledger(chain: LocalChain) -> CreditLedgerClient:
    client = CreditLedgerClient(chain, KEY)
    client.deploy()
    return client
