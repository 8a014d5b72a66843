"""Structured logs and OpenTelemetry traces. Trace context is W3C `traceparent`, also in NATS headers and facts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagator = TraceContextTextMapPropagator()


def configure(process: str, level: str = "info", otlp_endpoint: str = "") -> None:
    """Logs as JSON lines on stderr; traces are exported only where a collector is named."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    provider = TracerProvider(resource=Resource.create({"service.name": f"easel-{process}"}))
    if otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        insecure = not otlp_endpoint.startswith("https://")
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint, insecure=insecure)))
    trace.set_tracer_provider(provider)


def get_logger(name: str) -> Any:
    """A structured logger: `log.info("what happened", key=value)`."""
    return structlog.get_logger(component=name)


def tracer() -> trace.Tracer:
    """The process's tracer."""
    return trace.get_tracer("easel")


def current_traceparent() -> str | None:
    """The W3C trace context of the running span, to be handed on."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span_from(traceparent: str | None, name: str, **attributes: str) -> Iterator[trace.Span]:
    """A span that continues `traceparent`, or begins a trace where there is none."""
    context = _propagator.extract({"traceparent": traceparent}) if traceparent else None
    with tracer().start_as_current_span(name, context=context, attributes=dict(attributes)) as span:
        yield span
