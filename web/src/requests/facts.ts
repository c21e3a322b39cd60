// What is known of a span, in words: attributes of OpenTelemetry's stable conventions for HTTP and RPC, and
// where a value is missing that such a span has, that it is unknown and why.

import { formatValue } from '../flamegraph/values';
import { attribute, type Span } from './otlp';
import type { Row } from './waterfall';

export interface Fact {
  readonly label: string;
  readonly text: string;
  /** Whether `text` is the reason why the value is not known. */
  readonly unknown?: boolean;
}

const PARENT_SOURCES: Readonly<Record<string, string>> = {
  header: 'a header that came with the request',
  tcp_option: 'an option of its first packet',
  local_peer: 'the other end of its connection, on this host',
  goroutine: 'the goroutine that was at work on the request',
  thread: 'the thread that was at work on the request',
  pool: 'the thread that chose the connection, at work on the request',
  sdk: 'the application’s own SDK',
};

/** `no_request_open` as words. */
const words = (reason: string): string => reason.replaceAll('_', ' ');

function missingResponse(span: Span): string {
  const error = attribute(span.attributes, 'error.type');
  if (span.endNs === undefined) return 'no response yet';
  if (error !== undefined && !/^\d+$/.test(error)) return `no response: ${words(error)}`;
  return 'the response was not seen';
}

/** What a span is about, most telling first. */
export function factsOf(row: Row): Fact[] {
  const { span } = row;
  const facts: Fact[] = [];
  const read = (name: string): string | undefined => attribute(span.attributes, name);
  const put = (label: string, text: string | undefined, whyNot?: string): void => {
    if (text !== undefined && text !== '') facts.push({ label, text });
    else if (whyNot !== undefined) facts.push({ label, text: whyNot, unknown: true });
  };
  const method = read('http.request.method');
  const isRpc = read('rpc.system') !== undefined || read('rpc.system.name') !== undefined;
  const isHttp = method !== undefined || read('url.path') !== undefined || read('http.response.status_code') !== undefined;
  if (isRpc) {
    put('method', read('rpc.method') ?? span.name);
    put('service', read('rpc.service'));
    put('status', read('rpc.response.status_code') ?? read('rpc.grpc.status_code'), missingResponse(span));
  } else if (isHttp) {
    put('method', method === '_OTHER' ? read('http.request.method_original') : method, 'its head was not seen whole');
    const route = read('http.route');
    put('route', route === undefined ? undefined : `${route}${read('spanflame.route.source') === 'inferred' ? ' (inferred)' : ''}`);
    put('path', read('url.path') ?? read('url.full'), 'its head was not seen whole');
    put('status', read('http.response.status_code'), missingResponse(span));
  }
  const error = read('error.type');
  if (span.isError || error !== undefined) put('error', error === undefined ? span.statusMessage || 'yes' : words(error));
  const server = read('server.address');
  put('server', server === undefined ? undefined : [server, read('server.port')].filter(Boolean).join(':'));
  put('client', read('client.address'));
  put('parent', parentText(row), absentParent(row));
  put('made by', makerText(span));
  put('kept', keptText(span));
  return facts;
}

/** Who says all this: us, an SDK, or both of the same request. */
function makerText(span: Span): string | undefined {
  if (span.scope === 'spanflame') return 'spanflame, from what went over the wire';
  const sdk = span.scope === '' ? 'the application’s own SDK' : `the application’s own SDK (${span.scope})`;
  const seen = Number(attribute(span.attributes, 'spanflame.duration_ns') ?? Number.NaN);
  return Number.isNaN(seen) ? sdk : `${sdk}; on the wire ${formatValue(seen, 'nanoseconds')}`;
}

const KEPT_FOR: Readonly<Record<string, string>> = {
  slow: 'something in its trace took long',
  failed: 'something in its trace failed',
  passed_on: 'it went on to others as one that is kept',
};

/** Why it is there although there were more spans than are kept. */
function keptText(span: Span): string | undefined {
  const reason = attribute(span.attributes, 'spanflame.sampling.kept_for');
  return reason === undefined ? undefined : `beyond the limit of spans a second, since ${KEPT_FOR[reason] ?? words(reason)}`;
}

function parentText(row: Row): string | undefined {
  const source = attribute(row.span.attributes, 'spanflame.parent.source');
  if (row.parent === 'none') return undefined;
  const found = source === undefined ? '' : `known by ${PARENT_SOURCES[source] ?? words(source)}`;
  const elsewhere = row.parent === 'elsewhere' ? 'its span is not kept here' : '';
  return [found, elsewhere].filter((part) => part !== '').join('; ') || undefined;
}

function absentParent(row: Row): string | undefined {
  const reason = attribute(row.span.attributes, 'spanflame.parent.absent_reason');
  return row.parent === 'none' && reason !== undefined ? words(reason) : undefined;
}

/** Attributes that {@link factsOf} has not said already. */
const SAID = new Set([
  'http.request.method',
  'http.request.method_original',
  'http.route',
  'url.path',
  'url.full',
  'http.response.status_code',
  'rpc.method',
  'rpc.service',
  'rpc.response.status_code',
  'rpc.grpc.status_code',
  'error.type',
  'server.address',
  'server.port',
  'client.address',
  'spanflame.route.source',
  'spanflame.parent.source',
  'spanflame.parent.absent_reason',
  'spanflame.duration_ns',
  'spanflame.sampling.kept_for',
]);

export function otherAttributes(span: Span): readonly (readonly [string, string])[] {
  return span.attributes.filter(([name]) => !SAID.has(name));
}
