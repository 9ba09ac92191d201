"""What every simulated network has alike: its one model, prices, distances and paces."""

from __future__ import annotations

import hashlib
from typing import Final

from assay_coordinator.core.coordinator import Listed
from assay_coordinator.core.policy import Policy

SECOND: Final = 1_000_000  # microseconds
START: Final = 1_800_000_000 * SECOND
LATENCY_US: Final = 20_000  # one way
TICK_US: Final = SECOND
PREFILL_US: Final = 1_000  # a token
DECODE_US: Final = 10_000
SAVE_US: Final = 1_000
SLOTS: Final = 4  # of each node
CONTEXT: Final = 512
MODEL: Final = hashlib.sha256(b"simulated model").digest()
GRANT: Final = 10**12  # a client's money
EVENTS_MAX: Final = 20_000_000  # a run that needs more is not a scenario but a loop
LISTED: Final = Listed(
    name="simulated",
    model=MODEL,
    card=hashlib.sha256(b"simulated card").digest(),
    context=CONTEXT,
    price_in=1_000,
    price_out=2_000,
)
# A shorter pause, and a shorter chain of links to hash through; all else is production's.
POLICY: Final = Policy(suspension_us=60 * SECOND, links=1_024)
CANARY: Final = (11_939, 40_961, 7_057, 29_989)  # begins every prompt; no other text holds it
