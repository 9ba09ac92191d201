"""py-evm's names as used here, imported without what its import does to the whole process.

`import eth` raises the recursion limit to 12,288, for contracts that call 1,024 deep. With that
limit CPython 3.11's JSON parser overflows the C stack on nested brackets: any peer that may post
JSON to the process could crash it. Our contracts call one another a few deep, so the limit is
put back.
"""

from __future__ import annotations

import sys

_limit = sys.getrecursionlimit()

from eth.chains.base import MiningChain  # noqa: E402
from eth.constants import (  # noqa: E402
    BLANK_ROOT_HASH,
    CREATE_CONTRACT_ADDRESS,
    POST_MERGE_MIX_HASH,
    ZERO_ADDRESS,
)
from eth.db.atomic import AtomicDB  # noqa: E402
from eth.db.backends.base import BaseDB  # noqa: E402
from eth.exceptions import (  # noqa: E402
    BlockNotFound,
    HeaderNotFound,
    TransactionNotFound,
    VMError,
)
from eth.vm.forks.prague import PragueVM  # noqa: E402
from eth.vm.spoof import SpoofTransaction  # noqa: E402

sys.setrecursionlimit(_limit)

__all__ = [
    "BLANK_ROOT_HASH",
    "CREATE_CONTRACT_ADDRESS",
    "POST_MERGE_MIX_HASH",
    "ZERO_ADDRESS",
    "AtomicDB",
    "BaseDB",
    "BlockNotFound",
    "HeaderNotFound",
    "MiningChain",
    "PragueVM",
    "SpoofTransaction",
    "TransactionNotFound",
    "VMError",
]
