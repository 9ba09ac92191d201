"""What can happen to a node: the vocabulary that `Node.handle` understands.

A runtime (trio in app.py, a virtual clock in simnet) reports these and nothing else. `stream` is a
number the runtime gives each incoming job stream and never uses again; `request` is the number the
node gave a `Request` effect. Message bytes arrive as they came: the node decodes and checks them.
"""

from __future__ import annotations

from dataclasses import dataclass

from assay_node.engine.interface import Chunk, Replayed


@dataclass(frozen=True, slots=True)
class SessionUp:
    """The kept stream to the coordinator is open and both keys are proven."""


@dataclass(frozen=True, slots=True)
class SessionDown:
    """The stream to the coordinator ended. Open requests are reported as `Failed` as well."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The coordinator's answer to `request`, undecoded."""

    request: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """`request` got no answer: `code` is timeout or peer_gone."""

    request: int
    code: str


@dataclass(frozen=True, slots=True)
class Noticed:
    """A message of the coordinator that answers nothing, undecoded."""

    body: bytes


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A client, proven to hold `client`'s key, opened a job stream with `frame`.

    `answered`: a receipt for that ticket is on disk, however long ago the ticket expired.
    """

    stream: int
    client: bytes
    frame: bytes
    answered: bool = False


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """A further frame of the client."""

    stream: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class StreamLost:
    """The client closed or lost the stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """The engine drew the next tokens of a stream's answer."""

    stream: int
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class EngineStopped:
    """The engine cannot go on with a stream's answer; `code` is one of interface.Engine's."""

    stream: int
    code: str


@dataclass(frozen=True, slots=True)
class EngineOpened:
    """The engine is loaded and takes jobs."""

    engine: bytes


@dataclass(frozen=True, slots=True)
class EngineNotOpened:
    """The engine could not be loaded; the runtime has logged why."""

    engine: bytes


@dataclass(frozen=True, slots=True)
class EngineClosed:
    """The engine's memory is free."""

    engine: bytes


@dataclass(frozen=True, slots=True)
class ReplayDone:
    """The engine replayed an audit's transcript."""

    audit: bytes
    replayed: Replayed


@dataclass(frozen=True, slots=True)
class ReplayFailed:
    """The engine could not replay an audit's transcript."""

    audit: bytes
    code: str


@dataclass(frozen=True, slots=True)
class ReceiptSaved:
    """The receipt of `ticket` is durable."""

    ticket: bytes


@dataclass(frozen=True, slots=True)
class ReceiptNotSaved:
    """The receipt of `ticket` is not durable: `code` is disk_full or storage_failed."""

    ticket: bytes
    code: str


@dataclass(frozen=True, slots=True)
class RulesKept:
    """The rules of the last `KeepRules` are durable and no chain contradicts them."""


@dataclass(frozen=True, slots=True)
class RulesNotKept:
    """They are not: `code` is rules_invalid, or why they could not be compared or written."""

    code: str


@dataclass(frozen=True, slots=True)
class Drain:
    """The owner wants to leave: take nothing new, finish, deliver, then be drained."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The owner's limits let the node take nothing new, for `reason`; "" lets it go on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. Sent at least every `parameters.tick_us`."""


Event = (
    SessionUp
    | SessionDown
    | Answered
    | Failed
    | Noticed
    | StreamOpened
    | StreamFrame
    | StreamLost
    | Drawn
    | EngineStopped
    | EngineOpened
    | EngineNotOpened
    | EngineClosed
    | ReplayDone
    | ReplayFailed
    | ReceiptSaved
    | ReceiptNotSaved
    | RulesKept
    | RulesNotKept
    | Drain
    | Pause
    | Tick
)
