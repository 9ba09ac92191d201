"""Our spans as OpenTelemetry's, sent by its exporter in its thread; only tracing.py imports it."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from assay_network.tracing import BATCH_MAX, DELAY_MS, QUEUE_MAX, SEND_SECONDS, Span

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpExporter:
    """One service's way to its collector."""

    def __init__(self, url: str, service: str) -> None:
        self._resource = Resource({"service.name": service, "service.namespace": "assay"})
        self._scope = InstrumentationScope("assay")
        endpoint = url.rstrip("/") + "/v1/traces"
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint=endpoint, timeout=SEND_SECONDS),
            max_queue_size=QUEUE_MAX,
            max_export_batch_size=BATCH_MAX,
            schedule_delay_millis=DELAY_MS,
            export_timeout_millis=SEND_SECONDS * 1_000,
        )

    def emit(self, span: Span) -> None:
        """Queue it; dropped if the queue is full."""
        context = SpanContext(span.trace, span.id, False, _SAMPLED)
        parent = None
        if span.parent is not None:
            parent = SpanContext(span.trace, span.parent, True, _SAMPLED)
        failed = {"error.type": span.error} if span.error else {}
        self._processor.on_end(
            ReadableSpan(
                name=f"assay.{span.name}",
                context=context,
                parent=parent,
                resource=self._resource,
                attributes={**span.attributes, **failed},
                kind=SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
                start_time=span.began_us * 1_000,
                end_time=max(span.began_us, span.ended_us) * 1_000,
                instrumentation_scope=self._scope,
            )
        )

    def close(self) -> None:
        """Send what is left."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # it has no annotations
