"""The libp2p protocol ids: what travels where.

SESSION: node or client <-> coordinator, one kept stream of requests and notices.
JOB: client -> node, one stream a job (streams.py).
BLOCKS: node -> node, pieces of a model file on request (blocks.py).
REACH: node -> coordinator, one question: can I be dialed, and what time is it?
"""

from __future__ import annotations

from typing import Final

SESSION: Final = "/assay/session/1"
JOB: Final = "/assay/job/1"
BLOCKS: Final = "/assay/blocks/1"
REACH: Final = "/assay/reach/1"
