"""Traces by OpenTelemetry: a span for a request and one for each stage of its decision.

Sampled, and off unless ``RECOURSE_TRACE_SAMPLE`` says otherwise: then nothing of it is loaded. The
spans are made after the answer, from the times that the metrics take anyway. Where they go is said
by the standard ``OTEL_…`` variables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

EXPORTERS: Final = "opentelemetry_traces_exporter"
"""The entry points under which installed exporters are found."""

_STAGES: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)


class TracingError(ValueError):
    """The exporter that the environment names is not there; says which are."""


def collect_stages() -> dict[str, float]:
    """What `note_stages` notes from here on in this context, and in those copied from it."""
    stages: dict[str, float] = {}
    _STAGES.set(stages)
    return stages


def note_stages(stage_seconds: Mapping[str, float]) -> None:
    """Keep how long the stages of a decision took, if its request is to be traced.

    >>> note_stages({"read": 0.1})
    >>> noted = collect_stages()
    >>> note_stages({"read": 0.0005, "model": 0.0001}); noted
    {'read': 0.0005, 'model': 0.0001}
    """
    if (stages := _STAGES.get()) is not None:
        stages.update(stage_seconds)


class Tracing:
    """Makes and exports the spans of one worker.

    ``share`` of the requests that bring no sampled ``traceparent`` are traced; one that brings one
    is traced as its caller decided.
    """

    def __init__(self, share: float, exporter: SpanExporter | None) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = "OTEL_SERVICE_NAME" in os.environ
        resource = Resource.create({} if named else {SERVICE_NAME: "recourse"})
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(share), resource=resource, shutdown_on_exit=False
        )
        if exporter is not None:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("recourse")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def of(cls, share: float) -> Tracing | None:
        """Tracing by the environment's ``OTEL_TRACES_EXPORTER``; None where nothing is traced.

        Raises TracingError where the exporter is not installed: OTLP, the standard's own choice,
        comes with ``pip install opentelemetry-exporter-otlp-proto-http``.
        """
        if not share:
            return None
        return cls(share, _exporter(os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip()))

    def request(
        self,
        call: str,
        status: int,
        started_ns: int,
        ended_ns: int,
        traceparent: str | None = None,
        stage_seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Export what a request was, with its stages one after another, if it is sampled.

        ``call`` is the method and the declared path, so no span holds an identifier; times are
        epoch ns. ``total`` among the stages is no stage.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        given = {"traceparent": traceparent} if traceparent else {}
        parent = self._propagator.extract(given)
        method, _, route = call.partition(" ")
        about: dict[str, str | int] = {
            "http.request.method": method, "http.route": route,
            "http.response.status_code": status,
        }  # fmt: skip
        span = self._tracer.start_span(call, parent, SpanKind.SERVER, about, start_time=started_ns)
        if span.is_recording():
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            at, within = started_ns, set_span_in_context(span)
            for stage, seconds in (stage_seconds or {}).items():
                if stage != "total":
                    part = self._tracer.start_span(stage, within, start_time=at)
                    at += round(seconds * 1e9)
                    part.end(at)
        span.end(ended_ns)

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


def _exporter(name: str) -> SpanExporter | None:
    if name == "none":
        return None
    found = {entry.name: entry for entry in entry_points(group=EXPORTERS)}
    if name not in found:
        there = ", ".join(sorted([*found, "none"]))
        raise TracingError(
            f"OTEL_TRACES_EXPORTER: {name!r} is not installed, there are {there}; for otlp: "
            "pip install opentelemetry-exporter-otlp-proto-http"
        )
    exporter: SpanExporter = found[name].load()()
    return exporter
