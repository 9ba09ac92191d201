"""What a node wants done: the vocabulary a runtime turns into I/O, in the order given.

Every `Request` is answered by one `Answered` or `Failed`, every `SaveReceipt` by one `ReceiptSaved`
or `ReceiptNotSaved`, every `StartReplay` by one `ReplayDone` or `ReplayFailed`. A generation gives
one `Drawn` for `StartGenerate` and one for each `NextChunk`, until its last chunk, `EngineStopped`
or `StopGenerate`: the node never holds more than one chunk the client has no room for. An engine is
named by the model it loads. Every `KeepRules` is answered by one `RulesKept` or `RulesNotKept`.
"""

from __future__ import annotations

from dataclasses import dataclass

from assay_node.engine.interface import Generate, Replay
from assay_protocol.messages import NetworkRules


@dataclass(frozen=True, slots=True)
class Request:
    """Send `body` (an encoded message) to the coordinator and report the answer."""

    request: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Notify:
    """Send `body` (an encoded message) to the coordinator; lost if there is no session."""

    body: bytes


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send `frame` to the client; after the `last` one only acknowledgements are awaited."""

    stream: int
    frame: bytes
    last: bool = False


@dataclass(frozen=True, slots=True)
class CloseStream:
    """The stream is over once what was sent is out; report nothing more about it."""

    stream: int


@dataclass(frozen=True, slots=True)
class StartGenerate:
    """Begin an answer with this engine and report its first chunk."""

    stream: int
    generate: Generate
    engine: bytes


@dataclass(frozen=True, slots=True)
class NextChunk:
    """Report the answer's next chunk."""

    stream: int


@dataclass(frozen=True, slots=True)
class StopGenerate:
    """Give the answer up and free its slot."""

    stream: int


@dataclass(frozen=True, slots=True)
class StartReplay:
    """Replay a transcript for an audit with this engine."""

    audit: bytes
    replay: Replay
    engine: bytes


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """Load an engine; report `EngineOpened` or `EngineNotOpened`."""

    engine: bytes


@dataclass(frozen=True, slots=True)
class CloseEngine:
    """Unload an engine, with which nothing runs; report `EngineClosed`."""

    engine: bytes


@dataclass(frozen=True, slots=True)
class SaveReceipt:
    """Make a receipt durable, replacing an earlier row of the same ticket.

    `receipt`, `ack` and `ticket_blob` are signed blobs; `ack` is the client's last.
    """

    ticket: bytes
    receipt: bytes
    ack: bytes | None
    ticket_blob: bytes


@dataclass(frozen=True, slots=True)
class MarkReceipt:
    """Record what became of a receipt: `state` is booked or refused (then `code` says why).

    `charged` is in micro-credits.
    """

    ticket: bytes
    state: str
    charged: int
    code: str = ""


@dataclass(frozen=True, slots=True)
class KeepRules:
    """Compare `rules` with the chain, if the owner named one; then make `document`, their encoded
    form, durable in the place of earlier ones.
    """

    document: bytes
    rules: NetworkRules


@dataclass(frozen=True, slots=True)
class Log:
    """One log event with fields; never prompts, keys or text."""

    event: str
    fields: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is owed to anybody any more, or the time to drain is over: the process may end."""


Effect = (
    Request
    | Notify
    | SendFrame
    | CloseStream
    | StartGenerate
    | NextChunk
    | StopGenerate
    | StartReplay
    | OpenEngine
    | CloseEngine
    | SaveReceipt
    | MarkReceipt
    | KeepRules
    | Log
    | Drained
)
