// Has the SDK write spans to ORACLE_SPANS, a line of JSON each; see ../../oracle/truth.py. Loaded with --require,
// before anything that is instrumented.
'use strict'
const fs = require('fs')

if (process.env.ORACLE_SPANS) {
  const { SpanKind } = require('@opentelemetry/api')
  const { W3CTraceContextPropagator, ExportResultCode } = require('@opentelemetry/core')
  const { registerInstrumentations } = require('@opentelemetry/instrumentation')
  const { ExpressInstrumentation } = require('@opentelemetry/instrumentation-express')
  const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http')
  const { UndiciInstrumentation } = require('@opentelemetry/instrumentation-undici')
  const { BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base')
  const { NodeTracerProvider } = require('@opentelemetry/sdk-trace-node')

  const file = fs.openSync(process.env.ORACLE_SPANS, 'w')
  const unixNs = ([seconds, nanoseconds]) => Number(BigInt(seconds) * 1000000000n + BigInt(nanoseconds))
  const exporter = {
    export(spans, done) {
      const lines = spans.map((span) => JSON.stringify({
        trace_id: span.spanContext().traceId,
        span_id: span.spanContext().spanId,
        parent_span_id: span.parentSpanContext?.spanId ?? '',
        kind: SpanKind[span.kind].toLowerCase(),
        name: span.name,
        start_unix_ns: unixNs(span.startTime),
        end_unix_ns: unixNs(span.endTime),
        attributes: span.attributes,
      }))
      fs.writeSync(file, lines.join('\n') + '\n')
      done({ code: ExportResultCode.SUCCESS })
    },
    shutdown: async () => fs.closeSync(file),
  }
  // The queue must hold what one run makes: a span that the SDK drops is a hole in the truth.
  const processor = new BatchSpanProcessor(exporter, { maxQueueSize: 1 << 20, scheduledDelayMillis: 1000 })
  const provider = new NodeTracerProvider({ spanProcessors: [processor] })
  const isOn = process.env.OTEL_PROPAGATORS === 'tracecontext'
  const none = { inject() {}, extract: (context) => context, fields: () => [] }
  provider.register({ propagator: isOn ? new W3CTraceContextPropagator() : none })
  registerInstrumentations({
    instrumentations: [new HttpInstrumentation(), new ExpressInstrumentation(), new UndiciInstrumentation()],
  })
  process.on('SIGTERM', () => provider.shutdown().finally(() => process.exit(0)))
} else {
  process.on('SIGTERM', () => process.exit(0))
}
