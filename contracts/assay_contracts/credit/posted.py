"""A posted epoch's whole header: the ledger's storage keeps what contracts need of it, its event
the rest.

The event is found by the block's time, which the ledger keeps: no index is needed, and no node is
asked for more blocks than it tells of at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay_contracts.artefact import load
from assay_contracts.credit import ledger_abi
from assay_contracts.credit.ledger_abi import Header, PostedEpoch
from assay_contracts.credit.readers import ChainReader
from assay_contracts.records import Log
from assay_protocol.errors import AssayError

BLOCKS_OF_ONE_TIME_MAX: Final = 4_096
_DATA_WORDS: Final = 6


@dataclass(frozen=True, slots=True)
class Posting:
    """What stands on chain of one epoch."""

    epoch: int
    header: Header
    posted_at: int


def posted_epoch(chain: ChainReader, ledger: bytes, epoch: int) -> PostedEpoch:
    """What the ledger's storage holds. Raises AssayError("epoch_unknown") if there is none."""
    call = ledger_abi.epochs_call(epoch)
    found = ledger_abi.decode_epoch(chain.call(ledger, call))
    if found is None:
        raise AssayError("epoch_unknown", f"epoch {epoch} is not posted, or was voided")
    return found


def posting(chain: ChainReader, ledger: bytes, epoch: int) -> Posting:
    """The epoch with its whole header.

    Raises AssayError: "epoch_unknown" if it is not on the chain, "chain_mismatch" if no event of
    the ledger says what its storage does.
    """
    posted = posted_epoch(chain, ledger, epoch)
    number = _first_at(chain, posted.posted_at)
    for tried in range(number, number + BLOCKS_OF_ONE_TIME_MAX):
        if chain.timestamp(tried) != posted.posted_at:
            break
        for log in chain.logs(tried, ledger):
            header = _header_of(log, epoch)
            if header is not None and _same(header, posted):
                return Posting(epoch, header, posted.posted_at)
    raise AssayError("chain_mismatch", f"no event of epoch {epoch} at the time it was posted")


def _first_at(chain: ChainReader, seconds: int) -> int:
    """The first block that is not older: blocks' times never fall."""
    low, high = 0, chain.head()
    while low < high:
        middle = (low + high) // 2
        then = chain.timestamp(middle)
        if then is None:
            raise AssayError("chain_mismatch", f"the chain has no block {middle}")
        if then < seconds:
            low = middle + 1
        else:
            high = middle
    return low


def _header_of(log: Log, epoch: int) -> Header | None:
    names = load(ledger_abi.CONTRACT).events
    if len(log.topics) != 2 or names.get(log.topics[0]) != "EpochPosted":
        return None
    if int.from_bytes(log.topics[1]) != epoch or len(log.data) != _DATA_WORDS * ledger_abi.WORD:
        return None
    words = [log.data[at : at + 32] for at in range(0, len(log.data), 32)]
    root, total, jobs, leaves, data_hash, policy = words
    total_cum, count, size = (int.from_bytes(word) for word in (total, jobs, leaves))
    return Header(root, total_cum, count, size, data_hash, policy)


def _same(header: Header, posted: PostedEpoch) -> bool:
    told = header.root, header.total_cum, header.leaves
    return told == (posted.root, posted.total_cum, posted.leaves)
