"""Has the SDK write spans to a file, a line of JSON each; see ../../oracle/truth.py."""

import json
import os

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


class NoPropagator(TextMapPropagator):
    """Passes nothing on. The SDK's composite of none answers None, on which Flask's instrumentation stumbles."""

    def extract(self, carrier, context=None, getter=None):
        return context if context is not None else Context()

    def inject(self, carrier, context=None, setter=None):
        pass

    @property
    def fields(self):
        return set()


class SpanFile(SpanExporter):
    def __init__(self, path):
        self.file = open(path, "w")

    def export(self, spans):
        for span in spans:
            self.file.write(json.dumps({
                "trace_id": f"{span.context.trace_id:032x}",
                "span_id": f"{span.context.span_id:016x}",
                "parent_span_id": f"{span.parent.span_id:016x}" if span.parent else "",
                "kind": span.kind.name.lower(),
                "name": span.name,
                "start_unix_ns": span.start_time,
                "end_unix_ns": span.end_time,
                "attributes": dict(span.attributes),
            }) + "\n")
        self.file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self):
        self.file.close()


def start():
    """Whether there is an SDK: ORACLE_SPANS names the file, to which the process adds its number."""
    path = os.environ.get("ORACLE_SPANS")
    if not path:
        return False
    provider = TracerProvider()
    # The queue must hold what one run makes: a span that the SDK drops is a hole in the truth.
    exporter = SpanFile(f"{path}.{os.getpid()}")
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=1 << 20, schedule_delay_millis=1000))
    trace.set_tracer_provider(provider)
    is_on = os.environ.get("OTEL_PROPAGATORS") == "tracecontext"
    propagate.set_global_textmap(TraceContextTextMapPropagator() if is_on else NoPropagator())
    return True
