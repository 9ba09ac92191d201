"""What one node serves and the bounds it keeps: the constants of its core, by name and unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from assay_protocol.limits import TICKET_LIFETIME_SECONDS

SECOND_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Served:
    """A model this node serves, as the engine loaded it. Rates: thousandths of tokens/s."""

    model: bytes
    class_id: str
    slots: int
    context: int
    n_vocab: int
    eog: frozenset[int]
    prefill_rate: int
    decode_rate: int
    grammar: str = ""  # what computes the masks of grammars; "" if none are kept
    need_bytes: int = 0  # of memory while it is loaded
    load_us: int = 0  # what loading took
    base: bytes | None = None  # the model that is loaded, where this one is it with an adapter
    adapter: bytes | None = None  # sha256 of that adapter's file
    pieces: tuple[bytes, ...] = field(default=(), repr=False)  # the bytes of each token
    dims: int = 0  # numbers in a vector, of a model that embeds; 0: it writes answers
    tells_prompts: bool = False  # logprobs of a prompt may be asked for
    image_tokens: int = 0  # places that an image takes in a prompt; 0: none are read

    @property
    def engine(self) -> bytes:
        """Which engine computes it: one for a model and all its adapters."""
        return self.base or self.model


@dataclass(frozen=True, slots=True)
class Parameters:
    """Bounds and times of a node; every default is what production uses."""

    queue_max: int = 8  # jobs admitted beyond the engine's slots
    tickets_max: int = 65_536  # used tickets remembered until they expire
    busy_retry_ms: int = 500
    load_wait_us: int = 20 * SECOND_US  # for a model to be loaded; a client gives up at 60
    residence_us: int = 10 * SECOND_US  # a model stays loaded for so long at least
    ask_kept_us: int = 60 * SECOND_US  # who was refused for want of room may come back
    rest_us: int = 60 * SECOND_US  # after a model could not be loaded; doubled each time
    rest_max_us: int = 3_600 * SECOND_US
    slow_reader_us: int = 30 * SECOND_US  # without an acknowledgement that makes room
    stalled_us: int = 300 * SECOND_US  # without a token from the engine
    final_ack_us: int = 2 * SECOND_US  # to wait for the acknowledgement of the receipt
    lease_grace_us: int = TICKET_LIFETIME_SECONDS * SECOND_US  # tickets outlive a lost lease
    transcripts_max: int = 4_096
    transcript_bytes_max: int = 256 * 1024 * 1024
    transcript_age_us: int = 3_600 * SECOND_US
    audits_max: int = 4  # replays taken on at once as an auditor
    reveals_max: int = 1_024  # finished audits remembered to answer again
    outbox_max: int = 10_000
    outbox_in_flight_max: int = 16
    retry_base_us: int = SECOND_US
    retry_max_us: int = 60 * SECOND_US
    drain_us: int = 60 * SECOND_US  # for running jobs
    deliver_us: int = 10 * SECOND_US  # more, to hand in receipts
    prove_us: int = 300 * SECOND_US  # more, while answers wait for their draw or are under audit
    heartbeat_min_us: int = SECOND_US // 2  # however often the coordinator asks for one
    tick_us: int = 250_000
