"""The stream of one attempt at a job: who is at its ends, and what keeps its frames in order."""

from __future__ import annotations

from typing import Final, Protocol

from assay_simnet.drivers.buckets import Buckets
from assay_simnet.links import Line, Wire

BREAK_US: Final = 15_000_000  # until both ends know that a stream broke
DIAL_US: Final = 10_000_000  # production's patience with a node that does not answer


class ClientEnd(Protocol):
    """The client at one end."""

    number: int
    region: str

    @property
    def key(self) -> bytes: ...

    def framed(self, stream: JobStream, frame: bytes) -> None: ...

    def closed(self, stream: JobStream) -> None:
        """The node is gone, or the stream is."""
        ...


class NodeEnd(Protocol):
    """The node at the other."""

    number: int
    region: str
    line: Line
    reachable: bool  # strangers can dial it

    def opened(self, stream: JobStream, frame: bytes) -> None: ...

    def framed(self, stream: JobStream, frame: bytes) -> None: ...

    def lost(self, stream: JobStream) -> None:
        """The client is gone, or the stream is."""
        ...


class JobStream:
    """One stream, of its client's run `run`, attempt `attempt`."""

    __slots__ = ("attempt", "client", "down", "node", "number", "open", "run", "ticket", "up")

    def __init__(
        self, number: int, client: ClientEnd, run: int, attempt: int, node: NodeEnd, ticket: bytes
    ) -> None:
        self.number, self.client, self.run, self.attempt = number, client, run, attempt
        self.node, self.ticket, self.open = node, ticket, True
        self.up, self.down = Wire(), Wire()

    def broke(self, buckets: Buckets) -> None:
        """A frame will never come: both ends learn it by waiting."""
        buckets.after(BREAK_US, self.client.closed, self)
        buckets.after(BREAK_US, self.node.lost, self)
