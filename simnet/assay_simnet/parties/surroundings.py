"""What the parties of the small world know of it and of one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from assay_protocol.signing import Identity
from assay_simnet.language import Language


class Desk(Protocol):
    """The coordinator as nodes and clients know it."""

    @property
    def key(self) -> bytes: ...

    def receive(self, peer: bytes, request: int, body: bytes) -> None: ...


class NodeSide(Protocol):
    """A node as the coordinator and clients know it."""

    def answered(self, request: int, body: bytes) -> None: ...

    def noticed(self, body: bytes) -> None: ...

    def opened(self, stream: int, client: bytes, frame: bytes) -> None: ...

    def framed(self, stream: int, frame: bytes) -> None: ...

    def lost(self, stream: int) -> None: ...


class ClientSide(Protocol):
    """A client as the coordinator and nodes know it."""

    def answered(self, request: int, body: bytes) -> None: ...

    def framed(self, stream: int, frame: bytes) -> None: ...

    def lost(self, stream: int) -> None: ...


class Surroundings(Protocol):
    """The world around a party. Times are microseconds since the epoch."""

    now: int
    language: Language

    @property
    def coordinator(self) -> Desk: ...
    @property
    def nodes(self) -> Mapping[bytes, NodeSide]: ...
    @property
    def clients(self) -> Mapping[bytes, ClientSide]: ...

    def identity(self) -> Identity: ...

    def secret(self) -> bytes: ...

    def number(self) -> int: ...

    def below(self, bound: int) -> int: ...

    def after(self, delay_us: int, call: Callable[[], None]) -> None: ...
