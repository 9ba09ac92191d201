"""Spans, sent by OTLP over HTTP to a collector of the owner's; nothing is imported until then.

A span is made when it is over, from times that were seen anyway: no core and no hot path has a line
for it. It holds counts, outcomes and error codes; no prompt, token, key or peer. What a collector
does not take in time is dropped, and counted nowhere: traces are for looking, not for books.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from assay_protocol.errors import AssayError
from assay_protocol.extras import missing_text
from assay_protocol.traces import PARENTS, span_id, trace_id
from assay_protocol.urls import http_url

QUEUE_MAX: Final = 4_096  # spans that wait for the collector
BATCH_MAX: Final = 512
DELAY_MS: Final = 1_000
SEND_SECONDS: Final = 5.0
FOLLOWED_MAX: Final = 65_536  # jobs whose end is awaited
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Span:
    """One span of assay_protocol.traces, over. Times are microseconds since 1970. `of` is its
    ticket or audit; `under` that of its parent, if another. `error` is a code, "" if all went
    well."""

    name: str
    seed_ticket: bytes
    of: bytes
    began_us: int
    ended_us: int
    under: bytes = b""
    attributes: Mapping[str, str | int | bool] = field(default_factory=dict)
    error: str = ""

    @property
    def trace(self) -> int:
        return trace_id(self.seed_ticket)

    @property
    def id(self) -> int:
        return span_id(self.name, self.of)

    @property
    def parent(self) -> int | None:
        above = PARENTS[self.name]
        return None if above is None else span_id(above, self.under or self.of)


Emit = Callable[[Span], None]


class Followed(OrderedDict[_Key, _Value], Generic[_Key, _Value]):
    """What is known of jobs that are not over; the oldest is forgotten before there are more than
    FOLLOWED_MAX: one that nobody ends must not be kept for ever."""

    def __setitem__(self, key: _Key, value: _Value) -> None:
        super().__setitem__(key, value)
        if len(self) > FOLLOWED_MAX:
            self.popitem(last=False)


def check_endpoint(name: str, url: str) -> None:
    """Raises AssayError("config_invalid") unless the setting `name` is a collector's URL."""
    parts = http_url(url)
    if parts is None or parts.query:
        raise AssayError("config_invalid", f"{name} must be http(s)://HOST[:PORT], not {url!r}")


@contextmanager
def exporter(url: str, service: str) -> Iterator[Emit]:
    """Give spans to the collector at `url` (without /v1/traces) as `service`. Emitting never waits;
    a thread sends, and what is left is sent at the end, in bounded time. Raises
    AssayError("config_invalid") if the extra is not installed."""
    try:
        from assay_network.otlp import OtlpExporter
    except ModuleNotFoundError as error:
        raise AssayError("config_invalid", missing_text("otel", error.name or "")) from error
    sender = OtlpExporter(url, service)
    try:
        yield sender.emit
    finally:
        sender.close()
