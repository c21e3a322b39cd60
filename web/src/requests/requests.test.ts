// Traces and requests without a browser: reading, nesting, facts, the picture, the two groups.

import { describe, expect, test } from 'vitest';

import { readRequests } from '../app/requestsapi';
import { FrameClass } from '../flamegraph/graph';
import { TreeBuilder } from '../flamegraph/merge';
import { foldedOf, frameOf } from '../flamegraph/testgraphs';
import { FEWEST, contrastOf, graphOfGroup } from './contrast';
import { factsOf } from './facts';
import { readTrace, type Trace } from './otlp';
import { axesOf, formatMarked, isMarked, listed, msAt, nearest, nsAt, outcomeOf, parseMarked, quantile, shareText, xOf, yOf, type Requests } from './scatter';
import { hasBelow, ownNs, rowsOf, shownRows } from './waterfall';

const START = 1_763_733_600_123_456_789n;
type Fields = Record<string, unknown>;

function spanOf(id: number, parent: number, from: number, to: number | undefined, fields: Fields = {}): Fields {
  const hex = (number: number): string => (number === 0 ? '' : number.toString(16).padStart(16, '0'));
  return {
    traceId: '1'.repeat(32),
    spanId: hex(id),
    parentSpanId: hex(parent),
    name: `span ${id}`,
    kind: 2,
    startTimeUnixNano: String(START + BigInt(from)),
    ...(to === undefined ? {} : { endTimeUnixNano: String(START + BigInt(to)) }),
    ...fields,
  };
}

function traceOf(...spans: unknown[]): Trace {
  const resource = { attributes: [{ key: 'service.name', value: { stringValue: 'shop' } }] };
  return readTrace('1'.repeat(32), { resourceSpans: [{ resource, scopeSpans: [{ scope: { name: 'spanflame' }, spans }] }] });
}

const outline = (trace: Trace): string[] => rowsOf(trace).map((row) => `${'-'.repeat(row.depth)}${row.span.name.slice(5)} ${row.parent}`);

describe('a trace', () => {
  test('times keep their nanoseconds, though they do not fit a number', () => {
    const trace = traceOf(spanOf(1, 0, 0, 301), spanOf(2, 1, 7, 8));
    expect(trace.spans.map(({ startNs, endNs }) => [startNs, endNs])).toEqual([
      [0, 301],
      [7, 8],
    ]);
    expect(trace.durationNs).toBe(301);
    expect(trace.startUnixMs).toBe(1_763_733_600_123.456);
    expect(trace.spans[0]!.service).toBe('shop');
  });

  test('a span without an end still runs, and counts to its start', () => {
    const trace = traceOf(spanOf(1, 0, 0, undefined), spanOf(2, 1, 50, 90), spanOf(3, 1, 200, undefined));
    expect(trace.spans[0]!.endNs).toBeUndefined();
    expect(trace.durationNs).toBe(200);
  });

  test('what makes no sense is counted, and the rest is read', () => {
    const trace = traceOf(spanOf(1, 0, 0, 10), { spanId: 'zz', startTimeUnixNano: '5' }, spanOf(2, 0, 1, 2, { startTimeUnixNano: '' }), null);
    expect(trace.spans.length).toBe(1);
    expect(trace.broken).toBe(3);
    for (const body of [null, 7, {}, { resourceSpans: 'x' }, { resourceSpans: [{ scopeSpans: [{ spans: {} }] }] }]) {
      expect(readTrace('', body).spans).toEqual([]);
    }
  });

  test('an end before the start is no negative length', () => {
    expect(traceOf(spanOf(1, 0, 100, 200), spanOf(2, 1, 150, 90)).spans[1]!.endNs).toBe(50);
  });

  test('attributes of every sort have a text', () => {
    const value = { kvlistValue: { values: [{ key: 'a', value: { arrayValue: { values: [{ intValue: '9007199254740993' }, { doubleValue: 1.5 }] } } }] } };
    const trace = traceOf(spanOf(1, 0, 0, 1, { attributes: [{ key: 'x', value }, { key: 'y', value: { boolValue: false } }, { key: 'z' }] }));
    expect(trace.spans[0]!.attributes).toEqual([
      ['x', 'a=9007199254740993, 1.5'],
      ['y', 'false'],
      ['z', ''],
    ]);
  });
});

describe('the water-fall', () => {
  test('callers stand above what they called, in the order of starts, wherever they were in the file', () => {
    const trace = traceOf(spanOf(4, 2, 30, 40), spanOf(3, 1, 50, 90), spanOf(2, 1, 10, 45), spanOf(1, 0, 0, 100));
    expect(outline(trace)).toEqual(['1 none', '-2 here', '--4 here', '-3 here']);
    const rows = rowsOf(trace);
    expect(rows.map(({ end }) => end)).toEqual([4, 3, 3, 4]);
    expect(shownRows(rows, new Set([rows[1]!.span.id])).length).toBe(3);
    expect(rows.map((row) => hasBelow(rows, row))).toEqual([true, true, false, false]);
  });

  test('a parent that is not kept makes a root that says so', () => {
    expect(outline(traceOf(spanOf(1, 9, 0, 100), spanOf(2, 1, 1, 2)))).toEqual(['1 elsewhere', '-2 here']);
  });

  test('spans that are each other’s ancestors are all shown, once', () => {
    expect(outline(traceOf(spanOf(1, 2, 0, 9), spanOf(2, 1, 1, 8), spanOf(3, 3, 2, 3)))).toEqual(['1 elsewhere', '-2 here', '3 elsewhere']);
  });

  test('a span id that two spans have loses neither', () => {
    expect(rowsOf(traceOf(spanOf(1, 0, 0, 9), spanOf(2, 1, 1, 2), spanOf(2, 1, 3, 4))).length).toBe(3);
  });

  test('nesting may be deep', () => {
    const spans = Array.from({ length: 20_000 }, (_, index) => spanOf(index + 1, index, index, undefined));
    expect(rowsOf(traceOf(...spans)).at(-1)!.depth).toBe(19_999);
  });

  test('what runs beside each other covers its caller once', () => {
    const trace = traceOf(spanOf(1, 0, 0, 100), spanOf(2, 1, 10, 50), spanOf(3, 1, 30, 60), spanOf(4, 1, 90, 130));
    expect(ownNs(rowsOf(trace), 0, 130)).toBe(100 - 50 - 10);
    expect(ownNs(rowsOf(traceOf(spanOf(1, 0, 0, undefined), spanOf(2, 1, 40, undefined))), 0, 70)).toBe(40);
  });
});

describe('facts', () => {
  const http = (fields: Record<string, string>, end: number | 'open' = 10): string[] => {
    const attributes = Object.entries(fields).map(([key, stringValue]) => ({ key, value: { stringValue } }));
    return factsOf(rowsOf(traceOf(spanOf(1, 0, 0, end === 'open' ? undefined : end, { attributes })))[0]!).map(
      ({ label, text, unknown }) => `${label}${unknown === true ? '?' : ':'} ${text}`,
    );
  };
  test('what is known is said, a template that was inferred as such', () => {
    const said = http({ 'http.request.method': 'GET', 'url.path': '/cart/7', 'http.route': '/cart/{id}', 'spanflame.route.source': 'inferred', 'http.response.status_code': '200' });
    expect(said).toEqual(expect.arrayContaining(['method: GET', 'route: /cart/{id} (inferred)', 'path: /cart/7', 'status: 200']));
  });
  test('what is unknown is said to be, with the reason', () => {
    expect(http({ 'http.request.method': 'GET' }, 'open')).toContain('status? no response yet');
    expect(http({ 'http.request.method': 'GET', 'error.type': 'reset' })).toContain('status? no response: reset');
    expect(http({ 'http.request.method': 'GET' })).toContain('status? the response was not seen');
    expect(http({ 'http.response.status_code': '200' })).toContain('method? its head was not seen whole');
    expect(http({ 'http.request.method': 'GET', 'spanflame.parent.absent_reason': 'several_requests_open' })).toContain('parent? several requests open');
  });
  test('a parent says how it was found, and that it is not kept', () => {
    const attributes = [{ key: 'spanflame.parent.source', value: { stringValue: 'goroutine' } }];
    const [row] = rowsOf(traceOf(spanOf(2, 1, 0, 1, { attributes })));
    expect(factsOf(row!)).toContainEqual({ label: 'parent', text: 'known by the goroutine that was at work on the request; its span is not kept here' });
  });
  test('who made a span is told, and what was seen on the wire of one that an SDK made', () => {
    const maker = (name: string, attributes: unknown[]): unknown => {
      const spans = [{ ...spanOf(2, 0, 0, 5, { attributes }), traceId: '2'.repeat(32) }];
      const trace = readTrace('1'.repeat(32), { resourceSpans: [{ scopeSpans: [{ scope: { name }, spans }] }] });
      expect(trace.spans[0]!.traceId).toBe('2'.repeat(32));
      return factsOf(rowsOf(trace)[0]!).find(({ label }) => label === 'made by')?.text;
    };
    const seen = [{ key: 'spanflame.duration_ns', value: { intValue: '3000000' } }];
    expect(maker('spanflame', [])).toBe('spanflame, from what went over the wire');
    expect(maker('otelhttp', [])).toBe('the application’s own SDK (otelhttp)');
    expect(maker('', seen)).toBe('the application’s own SDK; on the wire 3 ms');
  });
});

const COLUMNS = ['start_unix_ms', 'duration_ns', 'error', 'status_code', 'service', 'name', 'trace_id', 'span_id'];

function requestsOf(rows: readonly [number, number | null, number | null, 0 | 1][]): Requests {
  const column = <Value>(value: (row: (typeof rows)[number], index: number) => Value): Value[] => rows.map(value);
  return readRequests({
    count: rows.length,
    truncated: false,
    services: ['shop'],
    names: ['GET /x'],
    columns: {
      start_unix_ms: column(([start]) => start),
      duration_ns: column(([, duration]) => duration),
      status_code: column(([, , code]) => code),
      error: column(([, , , error]) => error),
      service: column(() => 0),
      name: column(() => 0),
      trace_id: column((_, index) => `t${index}`),
      span_id: column((_, index) => `s${index}`),
    },
  });
}

describe('the share that is sampled', () => {
  const shown = (sampling: unknown): string => shareText(readRequests({ count: 0, columns: Object.fromEntries(COLUMNS.map((name) => [name, []])), sampling }).sampling);

  test('is told where it is not all, and no more exactly than it is worth', () => {
    const of = (requests: number, sampled: number): string => shown({ requests, sampled, max_spans_per_second: 2000 });
    expect(of(80_000, 2_000)).toBe('sampled: 2.5 %');
    expect(of(1000, 335)).toBe('sampled: 34 %');
    expect(of(1_000_000, 1_234)).toBe('sampled: 0.12 %');
    expect(of(1_000_000, 10)).toBe('sampled: less than 0.01 %');
    expect([of(7, 7), of(0, 0), shown(null), shown(undefined), shown('all')]).toEqual(['', '', '', '', '']);
  });
});

describe('the picture of requests', () => {
  const some = requestsOf([
    [1000, 5e6, 200, 0],
    [2000, 50e6, 503, 1],
    [3000, null, null, 0],
    [4000, 7e6, null, 0],
    [5000, 6e6, 404, 0],
    [6000, 6e6, 0, 0],
    [7000, 6e6, 14, 1],
    [8000, 6e6, 302, 0],
  ]);
  const NOW = 10_000;
  test('colours by what became of a request, of HTTP and of gRPC', () => {
    expect(Array.from({ length: 8 }, (_, index) => outcomeOf(some, index))).toEqual(['ok', 'error', 'open', 'unknown', 'client', 'ok', 'error', 'redirect']);
  });
  test('columns of different lengths are refused', () => {
    expect(() => readRequests({ count: 2, columns: { start_unix_ms: [1] } })).toThrow(/start_unix_ms/);
  });
  test('a place on the picture is a moment and a duration, there and back', () => {
    const axes = axesOf(some, 0, NOW, NOW, 500, 300);
    expect([axes.minNs, axes.maxNs]).toEqual([1e6, 1e10]);
    expect(xOf(axes, msAt(axes, 123))).toBeCloseTo(123);
    expect(yOf(axes, nsAt(axes, 77))).toBeCloseTo(77);
    expect(yOf(axes, 1e10)).toBe(0);
    expect(yOf(axes, 1)).toBe(300);
    expect(nearest(some, axes, NOW, xOf(axes, 2000) + 3, yOf(axes, 50e6) - 3, 8)).toBe(1);
    expect(nearest(some, axes, NOW, 0, 0, 8)).toBe(-1);
    // What still runs stands where it has got to.
    expect(nearest(some, axes, NOW, xOf(axes, 3000), yOf(axes, 7e9), 2)).toBe(2);
  });
  test('no requests have a picture too', () => {
    const axes = axesOf(requestsOf([]), 0, 1, 1, 10, 10);
    expect(axes.maxNs).toBeGreaterThan(axes.minNs);
  });
  test('a mark survives the URL and holds what lies in it', () => {
    const marked = parseMarked(formatMarked({ fromMs: 900.5, toMs: 2100, minNs: 4e6, maxNs: 6e6 }))!;
    expect(marked).toEqual({ fromMs: 900, toMs: 2100, minNs: 4e6, maxNs: 6e6 });
    expect([0, 1].map((index) => isMarked(some, index, marked, NOW))).toEqual([true, false]);
    for (const text of ['', '5-4,1-2', '1-2', '1-2,2-1', 'a-b,c-d']) expect(parseMarked(text)).toBeUndefined();
  });
  test('the list is in the order that is asked for', () => {
    expect(listed(some, undefined, 'slowest', NOW).slice(0, 2)).toEqual([2, 1]);
    expect(listed(some, undefined, 'newest', NOW)[0]).toBe(7);
    expect(quantile([1, 2, 3, 4], 0.5)).toBe(3);
    expect(quantile([], 0.5)).toBeNaN();
  });
});

describe('slow against typical', () => {
  test('the slowest twentieth, and those around the median', () => {
    const requests = requestsOf(Array.from({ length: 100 }, (_, index) => [index, (index + 1) * 1e6, 200, 0]));
    const { slow, typical } = contrastOf(requests)!;
    expect([slow.count, slow.minNs, slow.maxNs]).toEqual([5, 96e6, 100e6]);
    expect([typical.count, typical.minNs, typical.maxNs]).toEqual([20, 41e6, 60e6]);
    expect(slow.traceIds.has('t99')).toBe(true);
  });
  test('too few are not told apart, nor are those that still run', () => {
    expect(contrastOf(requestsOf(Array.from({ length: FEWEST - 1 }, () => [0, 1e6, 200, 0])))).toBeUndefined();
    expect(contrastOf(requestsOf(Array.from({ length: 50 }, () => [0, null, null, 0])))).toBeUndefined();
  });
  test('a graph by trace comes apart into the mean of each group', () => {
    const label = (name: string) => ({ ...frameOf(name), frameClass: FrameClass.Label, module: 'trace_id' });
    const frames = [{ ...frameOf('all'), frameClass: FrameClass.Root }, label('t1'), label('t2'), label('t3'), frameOf('main'), frameOf('work')];
    const builder = new TreeBuilder(frames);
    const put = (value: number, ...path: number[]): void => builder.addSelf(path.reduce((parent, frame) => builder.child(parent, frame), 0), value);
    put(6, 1, 4, 5);
    put(2, 1, 4);
    put(4, 2, 4, 5);
    put(100, 3, 4);
    put(7, 4);
    const { graph } = builder.build();
    const group = { traceIds: new Set(['t1', 't2']), count: 2, minNs: 0, maxNs: 0 };
    expect(foldedOf(graphOfGroup(graph, group))).toEqual(['main 1', 'main;work 5']);
    expect(graphOfGroup(graph, { ...group, traceIds: new Set() }).total[0]).toBe(0);
  });
});
