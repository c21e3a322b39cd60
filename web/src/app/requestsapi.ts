// Asks this server about requests: INTERFACE.md, `/api/v1/spans`, `traces`, `profiles/spans`.

import type { ColumnarFile } from '../flamegraph/columnar';
import { readTrace, type Trace } from '../requests/otlp';
import type { Requests } from '../requests/scatter';
import { ask, graphOf, json, list, numberOf, Problem, textOf } from './api';
import { parseBrush } from './time';
import type { UrlState } from './urlstate';

/** What is asked for: the requests that the host's services were sent. */
export function requestFields(state: UrlState): URLSearchParams {
  const fields = new URLSearchParams({ kind: 'server' });
  const { service, route, method, status, error, min, max, from, to } = state;
  const asked = { service, route, method, status, error, min_duration: min, max_duration: max, from, to };
  for (const [name, value] of Object.entries(asked)) {
    if (value !== '') fields.set(name, value);
  }
  return fields;
}

export async function fetchRequests(fields: URLSearchParams, signal: AbortSignal): Promise<Requests> {
  const body = await json(`api/v1/spans?${fields.toString()}`, signal);
  return readRequests(body);
}

/** The columns of the answer. Checked to be of one length, which is all that the page relies on. */
export function readRequests(body: Record<string, unknown>): Requests {
  const columns = (body.columns ?? {}) as Record<string, unknown>;
  const count = numberOf(body.count);
  const column = (name: string): unknown[] => {
    const values = columns[name];
    if (!Array.isArray(values) || values.length !== count) throw new Problem('broken', `the server sent no ${count} values of ${name}`);
    return values;
  };
  const texts = (values: unknown): string[] => (Array.isArray(values) ? values.map(textOf) : []);
  const named = (name: string, table: readonly string[]): string[] => column(name).map((index) => table[numberOf(index)] ?? '');
  return {
    count,
    truncated: body.truncated === true,
    startMs: Float64Array.from(column('start_unix_ms'), numberOf),
    durationNs: Float64Array.from(column('duration_ns'), (value) => (typeof value === 'number' ? value : NaN)),
    isError: Uint8Array.from(column('error'), (value) => (value === 1 || value === true ? 1 : 0)),
    statusCode: Int16Array.from(column('status_code'), (value) => (typeof value === 'number' ? value : -1)),
    service: named('service', texts(body.services)),
    name: named('name', texts(body.names)),
    traceId: column('trace_id').map(textOf),
    spanId: column('span_id').map(textOf),
    sampling: readSampling(body.sampling),
  };
}

function readSampling(sampling: unknown): Requests['sampling'] {
  if (typeof sampling !== 'object' || sampling === null) return undefined;
  const { requests, sampled, max_spans_per_second: limit } = sampling as Record<string, unknown>;
  return { requests: numberOf(requests), sampled: numberOf(sampled), limit: numberOf(limit) };
}

export async function fetchTrace(id: string, signal: AbortSignal): Promise<Trace> {
  return readTrace(id, await json(`api/v1/traces/${encodeURIComponent(id)}`, signal));
}

/** The flame graph of one span. */
export interface SpanGraph {
  readonly file: ColumnarFile;
  /** Why there is nothing in it, if the server knows. */
  readonly reason: string;
}

export function spanGraphPath(traceId: string, spanId: string): string {
  return `api/v1/spans/${encodeURIComponent(spanId)}/flamegraph?trace_id=${encodeURIComponent(traceId)}&format=columnar&group_by=`;
}

export async function fetchSpanGraph(path: string, signal: AbortSignal): Promise<SpanGraph> {
  const response = await ask(path, signal);
  const file = await graphOf(response, signal);
  const samples = Number(response.headers.get('X-Spanflame-Samples'));
  return {
    file: samples > 0 ? { ...file, samples } : file,
    reason: response.headers.get('X-Spanflame-Reason') ?? '',
  };
}

/** The requests that ran a function. */
export interface RanIt {
  readonly total: number;
  /** The part of the total that belongs to a request. */
  readonly stamped: number;
  readonly count: number;
  readonly spans: readonly {
    readonly traceId: string;
    readonly spanId: string;
    readonly value: number;
    readonly samples: number;
    /** Empty if the span itself is not kept. */
    readonly name: string;
    readonly service: string;
    /** NaN if it still runs, or is not kept. */
    readonly durationNs: number;
  }[];
}

export async function fetchRanIt(path: string, signal: AbortSignal): Promise<RanIt> {
  const body = await json(path, signal);
  return {
    total: numberOf(body.total),
    stamped: numberOf(body.stamped),
    count: numberOf(body.spans_total),
    spans: list(body, 'spans').map((row) => {
      const span = (row.span ?? {}) as Record<string, unknown>;
      return {
        traceId: textOf(row.trace_id),
        spanId: textOf(row.span_id),
        value: numberOf(row.value),
        samples: numberOf(row.samples),
        name: textOf(span.name),
        service: textOf(span.service),
        durationNs: typeof span.duration_ns === 'number' ? span.duration_ns : NaN,
      };
    }),
  };
}

/** The profile of a service with the traces above the stacks, over the stretch in which these requests ran. */
export function profileByTracePath(state: UrlState, fromMs: number, toMs: number): string {
  const fields = new URLSearchParams({ format: 'columnar', group_by: 'trace_id' });
  if (state.service !== '') fields.set('service', state.service);
  fields.set('from', String(Math.floor(fromMs / 1e3)));
  fields.set('to', String(Math.ceil(toMs / 1e3) + 1));
  return `api/v1/profiles/flamegraph?${fields.toString()}`;
}

/** The time of the profile page that shows the same stretch. */
export function stretchOf(state: UrlState): { from: string; to: string } {
  const brush = parseBrush(state.brush);
  return brush === undefined ? { from: state.from, to: state.to } : { from: String(brush.fromMs / 1e3), to: String(brush.toMs / 1e3) };
}
