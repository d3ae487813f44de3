"""Logs as JSON lines, and traces that follow one request through calls and messages.

A process configures logging once; a trace belongs to a service, whose `Tracing` is current in whatever that
service runs, so that several services in one process trace each under its own name.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int]

_PROPAGATOR = TraceContextTextMapPropagator()
_tracer: ContextVar[Tracer | None] = ContextVar("polymart_tracer", default=None)


class Tracing:
    """A service's tracer. Without a processor nothing is recorded, and a caller's trace id is only passed on."""

    def __init__(self, service: str, processor: "SpanProcessor | None" = None):
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        if processor is not None:
            # The SDK costs memory that a service without tracing shouldn't pay for.
            from opentelemetry.sdk import trace as sdk
            from opentelemetry.sdk.resources import Resource

            resource = Resource.create({"service.name": service})
            self._provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
            self._provider.add_span_processor(processor)
            self._tracer = self._provider.get_tracer("polymart")

    def use(self) -> None:
        """Make this the tracer of the current task and of the tasks it starts from now on."""
        _tracer.set(self._tracer)

    def shutdown(self) -> None:
        """Export what is recorded. Blocks, for a few seconds at most."""
        if self._provider is not None:
            self._provider.shutdown()


def configure_tracing(service: str, otlp_endpoint: str) -> Tracing:
    """Tracing to the OTLP/gRPC collector at `otlp_endpoint` (URL or host:port), or none where that is empty."""
    if not otlp_endpoint:
        return Tracing(service)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(otlp_endpoint, insecure=not otlp_endpoint.startswith("https://"), timeout=3)
    return Tracing(service, BatchSpanProcessor(exporter, schedule_delay_millis=1_000))


@contextmanager
def span(
    name: str, *, parent: str | None = None, kind: Kind = "internal", attributes: Attributes | None = None
) -> Iterator[Span]:
    """A span around the block, a child of `parent` (a W3C traceparent) or else of the current span.

    An exception that leaves the block marks it as failed. Where nothing is traced, `parent` is still what
    `current_traceparent` gives inside the block.
    """
    tracer = _tracer.get()
    if tracer is None and parent is None:
        yield trace.get_current_span()
        return
    context = _PROPAGATOR.extract({"traceparent": parent}) if parent is not None else otel_context.get_current()
    if tracer is None:
        passed_on = trace.get_current_span(context)
        with trace.use_span(NonRecordingSpan(passed_on.get_span_context())):
            yield passed_on
        return
    with tracer.start_as_current_span(
        name, context=context, kind=SpanKind[kind.upper()], attributes=dict(attributes or {})
    ) as started:
        yield started


def current_traceparent() -> str | None:
    """The current span as W3C `traceparent`, or the caller's where nothing is traced here; None without either."""
    current = trace.get_current_span()
    if current is INVALID_SPAN or not current.get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def current_trace_id() -> str | None:
    """The current trace's id, 32 hexadecimal digits."""
    current = trace.get_current_span().get_span_context()
    return trace.format_trace_id(current.trace_id) if current.is_valid else None


def configure_logging(level: str, service: str) -> None:
    """Log to stderr from now on, in the whole process: JSON lines, or readable ones on a terminal."""

    def name_service(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    threshold = logging.getLevelNamesMapping()[level]
    before: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
    ]
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if sys.stderr.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    structlog.configure(
        processors=[*before, *render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries log: the same lines, without their chatter.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
            foreign_pre_chain=[*before, structlog.stdlib.add_logger_name],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    # Elasticsearch's client warns at every try; who waits for the engine says so once.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
