// Requests for the mock server: two routes and an RPC, one slow and bimodal, some failed, one that still runs;
// and their traces as OTLP/JSON.

import { Buffer } from 'node:buffer';

const ROUTES = [
  ['shop', 'GET /cart/{id}', 12e6, 0.02],
  ['shop', 'POST /checkout', 90e6, 0.06],
  ['shop', 'GET /health', 0.3e6, 0],
  ['inventory', 'stock.Inventory/Reserve', 7e6, 0.01],
];

function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const hex = (number, digits) => number.toString(16).padStart(digits, '0');
export const traceIdOf = (index) => hex(index + 1, 32);
export const spanIdOf = (index) => hex(index * 16 + 1, 16);

/** The same 1,200 requests whenever they are made, the newest at `nowMs`. */
export function makeRequests(nowMs, count = 1200) {
  const random = randomNumbers(7);
  return Array.from({ length: count }, (_, index) => {
    const pick = random();
    const [service, name, middle, failing] = ROUTES[pick < 0.5 ? 0 : pick < 0.72 ? 1 : pick < 0.85 ? 2 : 3];
    const slow = name === 'POST /checkout' && random() < 0.07;
    const duration = middle * Math.exp((random() + random() + random() - 1.5) * 0.9) * (slow ? 8 : 1);
    const failed = random() < failing;
    const missing = !failed && random() < 0.02;
    const isRpc = name.startsWith('stock.');
    const code = failed ? (isRpc ? 14 : random() < 0.6 ? 503 : 404) : isRpc ? 0 : name.startsWith('POST') ? 201 : 200;
    return {
      index,
      service,
      name,
      startMs: nowMs - (count - index) * (840e3 / count) - random() * 500,
      durationNs: index === count - 3 ? null : Math.round(duration),
      error: failed && code !== 404 ? 1 : 0,
      code: index === count - 3 || missing ? null : code,
    };
  });
}

const durationOf = (text) => {
  const parts = /^([\d.]+)(us|ms|s|m)$/.exec(text);
  return parts === null ? NaN : Number(parts[1]) * { us: 1e3, ms: 1e6, s: 1e9, m: 60e9 }[parts[2]];
};

/** The answer of `/api/v1/spans`. */
export function spansAnswer(all, query) {
  const has = (name) => query.get(name) !== null;
  const kept = all.filter(
    (one) =>
      (!has('service') || one.service === query.get('service')) &&
      (!has('route') || one.name.replace(/^[A-Z]+ /, '') === query.get('route')) &&
      (!has('method') || one.name.startsWith(`${query.get('method')} `)) &&
      (!has('status') || (one.code !== null && (String(one.code) === query.get('status') || `${Math.floor(one.code / 100)}xx` === query.get('status')))) &&
      (!has('error') || String(one.error === 1) === query.get('error')) &&
      (!has('min_duration') || one.durationNs >= durationOf(query.get('min_duration'))) &&
      (!has('max_duration') || (one.durationNs !== null && one.durationNs <= durationOf(query.get('max_duration')))),
  );
  const services = [...new Set(kept.map(({ service }) => service))];
  const names = [...new Set(kept.map(({ name }) => name))];
  return {
    count: kept.length,
    truncated: false,
    sampling: { requests: 40 * kept.length, sampled: kept.length, max_spans_per_second: 2000 },
    services,
    names,
    columns: {
      start_unix_ms: kept.map(({ startMs }) => startMs),
      duration_ns: kept.map(({ durationNs }) => durationNs),
      error: kept.map(({ error }) => error),
      status_code: kept.map(({ code }) => code),
      kind: kept.map(() => 'server'),
      service: kept.map(({ service }) => services.indexOf(service)),
      name: kept.map(({ name }) => names.indexOf(name)),
      trace_id: kept.map(({ index }) => traceIdOf(index)),
      span_id: kept.map(({ index }) => spanIdOf(index)),
    },
  };
}

const attributes = (fields) =>
  Object.entries(fields).map(([key, value]) => ({
    key,
    value: typeof value === 'number' ? { intValue: String(value) } : typeof value === 'boolean' ? { boolValue: value } : { stringValue: value },
  }));

/** The trace of a request: it reads its database, asks another service, which reads its own. */
export function traceAnswer(one) {
  const traceId = traceIdOf(one.index);
  const startNs = BigInt(Math.round(one.startMs * 1e3)) * 1000n;
  const length = one.durationNs ?? 5e9;
  const at = (part) => String(startNs + BigInt(Math.round(part * length)));
  const id = (place) => hex(one.index * 16 + 1 + place, 16);
  const isOpen = one.durationNs === null;
  const span = (place, parent, name, kind, from, to, fields, more = {}) => ({
    traceId,
    spanId: id(place),
    parentSpanId: parent === undefined ? '' : id(parent),
    name,
    kind,
    startTimeUnixNano: at(from),
    ...(to === undefined ? {} : { endTimeUnixNano: at(to) }),
    attributes: attributes(fields),
    status: {},
    ...more,
  });
  const [method, route] = one.name.includes('/') && one.name.includes(' ') ? one.name.split(' ') : ['POST', `/${one.name}`];
  const error = one.error === 1 ? { status: { code: 2, message: '' } } : {};
  const resource = (service, pid) => ({
    attributes: attributes({ 'service.name': service, 'process.pid': pid, 'process.executable.path': `/srv/${service}/bin/${service}`, 'host.name': 'build-7' }),
  });
  const ours = { name: 'spanflame', version: '0.1.0' };
  const root = span(
    0,
    undefined,
    one.name,
    2,
    0,
    isOpen ? undefined : 1,
    {
      'http.request.method': method,
      'url.path': route.replace('{id}', '4711'),
      'http.route': route,
      'spanflame.route.source': 'inferred',
      ...(one.code === null ? {} : { 'http.response.status_code': one.code }),
      ...(one.error === 1 ? { 'error.type': String(one.code) } : {}),
      'server.address': 'shop.example',
      'server.port': 8080,
      'client.address': '10.0.3.17',
      'network.protocol.version': '1.1',
      'spanflame.parent.absent_reason': 'no_header',
    },
    error,
  );
  const callee = span(3, 2, 'stock.Inventory/Reserve', 2, 0.42, isOpen ? undefined : 0.78, {
    'rpc.system': 'grpc',
    'rpc.service': 'stock.Inventory',
    'rpc.method': 'Reserve',
    ...(isOpen ? {} : { 'rpc.grpc.status_code': one.error === 1 ? 14 : 0 }),
    'spanflame.parent.source': 'tcp_option',
  }, error);
  return {
    resourceSpans: [
      {
        resource: resource('shop', 4101),
        scopeSpans: [
          {
            scope: ours,
            spans: [
              root,
              span(1, 0, 'GET /session/{id}', 3, 0.03, 0.12, {
                'http.request.method': 'GET', 'url.path': '/session/9f', 'http.route': '/session/{id}', 'http.response.status_code': 200,
                'server.address': '127.0.0.1', 'server.port': 9010, 'spanflame.parent.source': 'goroutine',
              }),
              span(2, 0, 'stock.Inventory/Reserve', 3, 0.4, isOpen ? undefined : 0.8, {
                'rpc.system': 'grpc', 'rpc.service': 'stock.Inventory', 'rpc.method': 'Reserve', 'server.address': 'inventory', 'server.port': 50051,
                'spanflame.parent.source': 'goroutine',
              }, error),
            ],
          },
        ],
      },
      {
        resource: resource('inventory', 5220),
        scopeSpans: [
          { scope: ours, spans: [callee] },
          { scope: { name: 'go.opentelemetry.io/contrib', version: '1' }, spans: [span(4, 3, 'reserve rows', 1, 0.45, 0.7, { 'code.function.name': 'stock.reserve', 'spanflame.parent.source': 'sdk' })] },
        ],
      },
    ],
  };
}

/** A columnar graph (`src/flamegraph/columnar.ts`) of folded stacks; `trace_id=X` begins a label. */
function columnar(stacks) {
  const strings = [''];
  const stringOf = (text) => (strings.includes(text) ? strings.indexOf(text) : strings.push(text) - 1);
  const frames = [{ sort: 0, name: 0, module: 0 }];
  const numbers = new Map([['', 0]]);
  const root = { frame: 0, self: 0, children: new Map() };
  for (const [path, value] of stacks) {
    let node = root;
    for (const name of path) {
      if (!numbers.has(name)) {
        const [label, of] = name.startsWith('trace_id=') ? ['trace_id', name.slice(9)] : ['/srv/shop/bin/shop', name];
        numbers.set(name, frames.push({ sort: label === 'trace_id' ? 6 : 1, name: stringOf(of), module: stringOf(label) }) - 1);
      }
      const frame = numbers.get(name);
      if (!node.children.has(frame)) node.children.set(frame, { frame, self: 0, children: new Map() });
      node = node.children.get(frame);
    }
    node.self += value;
  }
  const varint = (bytes, number) => {
    let rest = number;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
    bytes.push(rest);
  };
  const columns = Array.from({ length: 11 }, () => []);
  let [nodes, depthBefore, total] = [0, -1, 0];
  const walk = (node, depth) => {
    varint(columns[8], depthBefore + 1 - depth);
    varint(columns[9], node.frame);
    varint(columns[10], node.self);
    depthBefore = depth;
    nodes++;
    total += node.self;
    for (const child of node.children.values()) walk(child, depth + 1);
  };
  walk(root, 0);
  for (const frame of frames) {
    columns[2].push(frame.sort);
    [frame.name, 0, 0, frame.module, 0].forEach((number, place) => varint(columns[3 + place], number));
  }
  const [kind, unit] = [stringOf('cpu'), stringOf('nanoseconds')];
  for (const text of strings) {
    varint(columns[0], text.length);
    for (let at = 0; at < text.length; at++) columns[1].push(text.charCodeAt(at));
  }
  const header = new DataView(new ArrayBuffer(64));
  header.setUint32(0, 0x53464347);
  header.setUint16(4, 1, true);
  header.setBigUint64(8, BigInt(total), true);
  [kind, unit, strings.length, frames.length, nodes].forEach((number, place) => header.setUint32(40 + 4 * place, number, true));
  const parts = [Buffer.from(header.buffer)];
  for (const bytes of columns) parts.push(Buffer.from(Uint32Array.of(bytes.length).buffer), Buffer.from(bytes));
  return Buffer.concat(parts);
}

/** The profile of a service by trace: what is slow has been in `compress_receipt` for most of the time. */
export function profileByTrace(all, service) {
  const stacks = [];
  for (const one of all) {
    if (one.durationNs === null || (service !== null && one.service !== service)) continue;
    const top = [`trace_id=${traceIdOf(one.index)}`, 'main', 'serve', one.name];
    const cpu = Math.round(one.durationNs * 0.4);
    const slow = one.durationNs > 300e6;
    stacks.push([[...top, 'parse_json'], Math.round(Math.min(cpu, 4e6))]);
    stacks.push([[...top, 'render', 'write_html'], Math.round(Math.min(cpu, 20e6))]);
    if (slow) stacks.push([[...top, 'receipt', 'compress_receipt'], cpu]);
  }
  return columnar(stacks);
}
