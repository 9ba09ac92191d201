"""The job that an ask of the workload becomes: its client draws what no length says."""

from __future__ import annotations

from typing import Final

from assay.events import Job
from assay_coordinator.core.coordinator import Listed
from assay_protocol.messages import Sampler
from assay_simnet.evidence import VOCABULARY
from assay_simnet.seeds import Stream
from assay_simnet.setting import CANARY
from assay_simnet.traces import Ask

SAMPLER: Final = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


def job_of(ask: Ask, draw: Stream, listed: Listed, verify: str) -> Job:
    """`draw`: the client's own stream."""
    own = draw.word()
    rest = max(0, ask.n_in - len(CANARY) - 1)
    return Job(
        model=listed.model,
        prompt=(*CANARY, 1 + own % (VOCABULARY - 1), *(1,) * rest),
        sampler=SAMPLER,
        max_tokens=ask.n_out,
        nonce=b"".join(draw.word().to_bytes(8, "big") for _ in range(4)),
        vocabulary=VOCABULARY,
        verify=verify,
    )
