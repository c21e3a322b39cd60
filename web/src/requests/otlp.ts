// Reads one trace as OTLP/JSON has it (opentelemetry-proto, "JSON Protobuf encoding"): ids in hexadecimal,
// 64-bit numbers as decimal strings, enums as numbers. Unix nanoseconds do not fit a JavaScript number, so
// times become nanoseconds since the earliest start. What is malformed is left out and counted.

export const KINDS = ['unspecified', 'internal', 'server', 'client', 'producer', 'consumer'] as const;
export type SpanKind = (typeof KINDS)[number];

/** Name and value as text. */
export type Attribute = readonly [string, string];

export interface SpanEvent {
  readonly name: string;
  readonly atNs: number;
  readonly attributes: readonly Attribute[];
}

export interface Span {
  readonly id: string;
  /** Spans of two traces come together where an SDK began one for a request of the other. */
  readonly traceId: string;
  /** Empty for the first of a trace. */
  readonly parentId: string;
  readonly name: string;
  readonly kind: SpanKind;
  readonly service: string;
  /** Since the start of the trace. */
  readonly startNs: number;
  /** `undefined` while it runs. */
  readonly endNs: number | undefined;
  readonly isError: boolean;
  readonly statusMessage: string;
  readonly attributes: readonly Attribute[];
  readonly resource: readonly Attribute[];
  readonly events: readonly SpanEvent[];
  /** Who made it: ours is `spanflame`. */
  readonly scope: string;
}

export interface Trace {
  readonly id: string;
  readonly startUnixMs: number;
  /** From the earliest start to the latest end; open spans count to their start. */
  readonly durationNs: number;
  readonly spans: readonly Span[];
  /** Spans that made no sense. */
  readonly broken: number;
}

type Json = Record<string, unknown>;

const objectOf = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {});
const listOf = (value: unknown): Json[] => (Array.isArray(value) ? value.map(objectOf) : []);
const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');

/** Unix nanoseconds; 0 for what is none. */
function timeOf(value: unknown): bigint {
  const text = typeof value === 'number' ? String(value) : textOf(value);
  return /^\d{1,20}$/.test(text) ? BigInt(text) : 0n;
}

/** The text of an `AnyValue`. */
function valueText(value: Json, depth = 0): string {
  if (depth > 8) return '…';
  if (typeof value.stringValue === 'string') return value.stringValue;
  if (typeof value.boolValue === 'boolean') return String(value.boolValue);
  if (typeof value.intValue === 'string' || typeof value.intValue === 'number') return String(value.intValue);
  if (typeof value.doubleValue === 'number' || typeof value.doubleValue === 'string') return String(value.doubleValue);
  if (typeof value.bytesValue === 'string') return value.bytesValue;
  if (value.arrayValue !== undefined) {
    return listOf(objectOf(value.arrayValue).values)
      .map((part) => valueText(part, depth + 1))
      .join(', ');
  }
  if (value.kvlistValue !== undefined) {
    return listOf(objectOf(value.kvlistValue).values)
      .map((part) => `${textOf(part.key)}=${valueText(objectOf(part.value), depth + 1)}`)
      .join(', ');
  }
  return '';
}

function attributesOf(value: unknown): Attribute[] {
  return listOf(value).map((one) => [textOf(one.key), valueText(objectOf(one.value))] as const);
}

export function attribute(attributes: readonly Attribute[], name: string): string | undefined {
  return attributes.find(([key]) => key === name)?.[1];
}

export function readTrace(id: string, body: unknown): Trace {
  const found: { raw: Json; start: bigint; end: bigint; resource: readonly Attribute[]; scope: string }[] = [];
  let broken = 0;
  for (const ofResource of listOf(objectOf(body).resourceSpans)) {
    const resource = attributesOf(objectOf(ofResource.resource).attributes);
    for (const ofScope of listOf(ofResource.scopeSpans)) {
      const scope = textOf(objectOf(ofScope.scope).name);
      for (const raw of listOf(ofScope.spans)) {
        const start = timeOf(raw.startTimeUnixNano);
        if (start === 0n || !/^[0-9a-f]{16}$/.test(textOf(raw.spanId))) broken++;
        else found.push({ raw, start, end: timeOf(raw.endTimeUnixNano), resource, scope });
      }
    }
  }
  const first = found.reduce((earliest, { start }) => (earliest === 0n || start < earliest ? start : earliest), 0n);
  const since = (time: bigint): number => Number(time - first);
  let durationNs = 0;
  const spans = found.map(({ raw, start, end, resource, scope }): Span => {
    const startNs = since(start);
    // An end before the start is a clock that was set: the span has no length that anybody knows better.
    const endNs = end === 0n ? undefined : Math.max(startNs, since(end));
    durationNs = Math.max(durationNs, endNs ?? startNs);
    const status = objectOf(raw.status);
    return {
      id: textOf(raw.spanId),
      traceId: textOf(raw.traceId) || id,
      parentId: textOf(raw.parentSpanId),
      name: textOf(raw.name),
      kind: kindOf(raw.kind),
      service: attribute(resource, 'service.name') ?? '',
      startNs,
      endNs,
      isError: status.code === 2 || status.code === 'STATUS_CODE_ERROR',
      statusMessage: textOf(status.message),
      attributes: attributesOf(raw.attributes),
      resource,
      events: listOf(raw.events).map((event) => ({
        name: textOf(event.name),
        atNs: since(timeOf(event.timeUnixNano)),
        attributes: attributesOf(event.attributes),
      })),
      scope,
    };
  });
  return { id, startUnixMs: Number(first / 1000n) / 1e3, durationNs, spans, broken };
}

/** OTLP/JSON has numbers; some writers send the names all the same. */
function kindOf(value: unknown): SpanKind {
  if (typeof value === 'number') return KINDS[value] ?? 'unspecified';
  const name = textOf(value).replace('SPAN_KIND_', '').toLowerCase();
  return KINDS.find((kind) => kind === name) ?? 'unspecified';
}
