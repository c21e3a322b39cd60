package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
)

// spanFile writes each span as a line of JSON; see ../../oracle/truth.py.
type spanFile struct {
	mutex sync.Mutex
	file  *os.File
	lines *bufio.Writer
}

func (to *spanFile) ExportSpans(_ context.Context, spans []trace.ReadOnlySpan) error {
	to.mutex.Lock()
	defer to.mutex.Unlock()
	encoder := json.NewEncoder(to.lines)
	for _, span := range spans {
		attributes := map[string]any{}
		for _, attribute := range span.Attributes() {
			attributes[string(attribute.Key)] = attribute.Value.AsInterface()
		}
		parent := ""
		if span.Parent().HasSpanID() {
			parent = span.Parent().SpanID().String()
		}
		err := encoder.Encode(map[string]any{
			"trace_id": span.SpanContext().TraceID().String(), "span_id": span.SpanContext().SpanID().String(),
			"parent_span_id": parent, "kind": span.SpanKind().String(), "name": span.Name(),
			"start_unix_ns": span.StartTime().UnixNano(), "end_unix_ns": span.EndTime().UnixNano(),
			"attributes": attributes,
		})
		if err != nil {
			return err
		}
	}
	return to.lines.Flush()
}

func (to *spanFile) Shutdown(context.Context) error {
	return to.file.Close()
}

// startSDK has the SDK write to ORACLE_SPANS and propagate as OTEL_PROPAGATORS says. It does nothing without a file.
func startSDK() func() {
	path := os.Getenv("ORACLE_SPANS")
	if path == "" {
		return func() {}
	}
	file, err := os.Create(path)
	if err != nil {
		log.Fatal(err)
	}
	exporter := &spanFile{file: file, lines: bufio.NewWriter(file)}
	// The queue must hold what one run makes: a span that the SDK drops is a hole in the truth.
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter, trace.WithMaxQueueSize(1<<20)))
	otel.SetTracerProvider(provider)
	if os.Getenv("OTEL_PROPAGATORS") == "tracecontext" {
		otel.SetTextMapPropagator(propagation.TraceContext{})
	}
	return func() {
		if err := provider.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
	}
}
