"""What jobs are like, of which the epochs only count how many: a sample of the workload's own.

The workload that the fast driver plays is drawn here once, SAMPLED jobs of it. Their mean is what
machines compute; their prices are production's, from a ticket for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_protocol.limits import LEAF_TOKENS
from assay_protocol.messages import Sampler, SubmitJob, Ticket
from assay_protocol.tickets import job_price
from assay_simnet.arrivals import sessions
from assay_simnet.scenario import Model, Workload
from assay_simnet.seeds import Stream
from assay_simnet.traces import Ask

SAMPLED: Final = 2_048
MODEL: Final = bytes([7]) * 32
_PLAIN: Final = Sampler(temperature=0.8, top_k=0, top_p=1.0, min_p=0.0)


@dataclass(frozen=True)
class Asks:
    """Tokens of prompts and answers, and micro-credits at the listed prices, of each job."""

    n_in: NDArray[np.int64]
    n_out: NDArray[np.int64]
    prices: NDArray[np.int64]
    per_s: float  # jobs, of the whole network, before anything moves demand

    @property
    def price(self) -> int:
        """Of the mean job, rounded up as any."""
        return int(-(-self.prices.sum() // len(self.prices)))

    @property
    def mean(self) -> tuple[int, int]:
        """Tokens of prompt and answer of the mean job."""
        return round(float(self.n_in.mean())), round(float(self.n_out.mean()))


def sample(workload: Workload, model: Model, stream: Stream) -> Asks:
    """Of a workload that arrives by a law, not by a trace."""
    drawn: list[Ask] = []
    begun = 0
    for turns in sessions(workload, stream, ()):
        begun += 1
        drawn += turns.asks
        if len(drawn) >= SAMPLED:
            break
    prices = [job_price(ticket(model, ask.n_in, ask.n_out), ask.n_out) for ask in drawn]
    return Asks(
        np.array([ask.n_in for ask in drawn], np.int64),
        np.array([ask.n_out for ask in drawn], np.int64),
        np.array(prices, np.int64),
        workload.rate * len(drawn) / begun,
    )


def ticket(model: Model, n_in: int, n_out: int) -> Ticket:
    """What a coordinator would sign for such a job, as far as prices go."""
    return Ticket(
        ticket=bytes(16),
        client=bytes(32),
        node=bytes(32),
        model=MODEL,
        prompt_hash=bytes(32),
        n_in=n_in,
        sampler=_PLAIN,
        max_tokens=n_out,
        start=0,
        nonce_commitment=bytes(32),
        seed_ticket=bytes(16),
        price_in=model.price_in,
        price_out=model.price_out,
        issued_at=0,
        expires_at=0,
        epoch=1,
    )


def submitted(n_in: int, n_out: int) -> SubmitJob:
    """What the scheduler would be asked for."""
    return SubmitJob(
        model=MODEL,
        prompt_hash=bytes(32),
        n_in=n_in,
        sampler=_PLAIN,
        max_tokens=n_out,
        nonce_commitment=bytes(32),
        exclude=(),
        only=(),
    )


def replayed_tokens(asks: Asks) -> float:
    """Of the mean audit: the prompt, and all of an answer or, half of the time, whole leaves of it
    (the coordinator's coverage.py)."""
    leaves = (asks.n_out - 1) // LEAF_TOKENS
    prefix = np.where(leaves >= 1, LEAF_TOKENS * (leaves + 1) / 2, asks.n_out)
    return float((asks.n_in + (asks.n_out + prefix) / 2).mean())
