// Stands in for the server while only the page is worked on: the shapes of INTERFACE.md, with figures that
// depend on what is asked for. `node tests/mock-server.js [PORT]` serves dist/ and the API.
// `POST /mock/MODE` makes it `fine`, `gone` (closes connections), `empty` (no samples yet), `idle`, `missing`,
// `unauthorized` or `busy`.
import { createServer } from 'node:http';
import { existsSync, readFileSync } from 'node:fs';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeRequests, profileByTrace, spanIdOf, spansAnswer, traceAnswer, traceIdOf } from './mock-requests.js';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
export const POLICY =
  "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";
const SERVICES = [
  ['checkout', 5120],
  ['postgresql', 2210],
  ['nginx.service', 990],
  ['search-indexer', 640],
  ['com.example.orders.OrderServiceApplication', 410],
  ['sshd.service', 12],
];

/** Now, or before it, or Unix seconds. */
function moment(text, fallback) {
  const now = Date.now() / 1e3;
  if (!text) return fallback ?? now;
  const relative = /^-(\d+)([smh])$/.exec(text);
  if (relative !== null) return now - Number(relative[1]) * { s: 1, m: 60, h: 3600 }[relative[2]];
  return Number(text);
}

function timeline(query) {
  const [from, to] = [moment(query.get('from')), moment(query.get('to'))];
  const step = Math.max(10, Math.ceil((to - from) / 400));
  const points = [];
  const scale = query.get('service') === null || query.get('service') === '' ? 1 : 0.4;
  for (let time = Math.floor(from / step) * step; time < to; time += step) {
    const wave = 1.1 + Math.sin(time / 90) + 0.6 * Math.sin(time / 37) + (time % 170 < 14 ? 1.4 : 0);
    points.push({ time, value: Math.max(0, Math.round(wave * scale * step * 1e9)) });
  }
  return { step_s: step, points };
}

export function startMock(files = {}) {
  let mode = 'fine';
  const asked = [];
  const requests = makeRequests(Date.now());
  const graphs = {
    after: readFileSync(files.after ?? join(HERE, '../testdata/everything.columnar')),
    before: readFileSync(files.before ?? join(HERE, '../testdata/recursive.columnar')),
    empty: readFileSync(join(HERE, '../testdata/empty.columnar')),
  };
  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost');
    const send = (status, body, type = 'application/json', headers = {}) => {
      response.writeHead(status, { 'Content-Type': type, 'Content-Security-Policy': POLICY, ...headers });
      response.end(type === 'application/json' ? JSON.stringify(body) : body);
    };
    const fail = (status, error, message, headers) => send(status, { error, message, details: {} }, undefined, headers);
    if (request.method === 'POST' && url.pathname.startsWith('/mock/')) {
      mode = url.pathname.slice('/mock/'.length);
      return send(200, {});
    }
    if (url.pathname.startsWith('/api/')) {
      asked.push(url.pathname + url.search);
      if (mode === 'gone') return request.socket.destroy();
      if (mode === 'busy') return fail(503, 'service_unavailable', 'too many requests', { 'Retry-After': '1' });
      if (mode === 'unauthorized') return fail(401, 'unauthorized', 'a token is needed');
    }
    const ofTrace = /^\/api\/v1\/traces\/([0-9a-f]{32})$/.exec(url.pathname);
    if (ofTrace !== null) {
      const one = requests.find(({ index }) => traceIdOf(index) === ofTrace[1]);
      return one === undefined ? fail(404, 'not_found', `no trace ${ofTrace[1]}`) : send(200, traceAnswer(one));
    }
    const ofSpan = /^\/api\/v1\/spans\/([0-9a-f]{16})\/flamegraph$/.exec(url.pathname);
    if (ofSpan !== null) {
      // The spans of other services have no samples here.
      const sampled = parseInt(ofSpan[1], 16) % 16 < 4;
      return send(200, sampled ? graphs.after : graphs.empty, 'application/octet-stream', {
        'X-Spanflame-Samples': sampled ? '23' : '0',
        ...(sampled ? {} : { 'X-Spanflame-Reason': 'no sample fell into this span' }),
      });
    }
    switch (url.pathname) {
      case '/api/v1/spans':
        return send(200, mode === 'empty' ? spansAnswer([], url.searchParams) : spansAnswer(requests, url.searchParams));
      case '/api/v1/profiles/spans': {
        const spans = requests.slice(0, 20).map((one, place) => ({
          trace_id: traceIdOf(one.index), span_id: spanIdOf(one.index), value: 9e7 / (place + 1), samples: 20 - place,
          span: place === 3 ? null : { span_id: spanIdOf(one.index), service: one.service, name: one.name, kind: 'server', duration_ns: one.durationNs },
        }));
        return send(200, { type: 'cpu', unit: 'nanoseconds', function: url.searchParams.get('function'), total: 5e8, stamped: 3.7e8, spans, spans_total: 31 });
      }
      case '/api/v1/services': {
        const services = mode === 'empty' ? [] : SERVICES.map(([name, samples]) => ({ name, samples, types: ['cpu'] }));
        return send(200, { services });
      }
      case '/api/v1/profiles/types':
        return send(200, { types: mode === 'empty' ? [] : [{ name: 'cpu', unit: 'nanoseconds' }] });
      case '/api/v1/profiles/timeline':
        return send(200, mode === 'empty' ? { step_s: 10, points: [] } : timeline(url.searchParams));
      case '/api/v1/profiles/verdicts':
        return send(200, { decided: false, reason: 'B: there are 3 windows of it', min_share: 0.01, functions: [] });
      case '/api/v1/profiles/flamegraph': {
        if (mode === 'missing') return fail(404, 'not_found', `no service ${url.searchParams.get('service')} in this range`);
        if (url.searchParams.get('format') !== 'columnar') {
          return send(200, 'a file', 'application/octet-stream', { 'Content-Disposition': 'attachment; filename="profile.pb.gz"' });
        }
        if (url.searchParams.get('group_by') === 'trace_id') {
          return send(200, profileByTrace(requests, url.searchParams.get('service')), 'application/octet-stream');
        }
        const isEmpty = mode === 'empty' || mode === 'idle';
        const isOther = url.searchParams.get('service') === 'postgresql';
        return send(200, isEmpty ? graphs.empty : isOther ? graphs.before : graphs.after, 'application/octet-stream');
      }
    }
    const name = join(HERE, '../dist', normalize(url.pathname === '/' ? '/index.html' : url.pathname));
    const type = TYPES[extname(name)];
    if (type === undefined || !existsSync(name)) return fail(404, 'not_found', `there is no ${url.pathname}`);
    send(200, readFileSync(name), type);
  });
  return new Promise((resolve) => {
    server.listen(files.port ?? 0, '127.0.0.1', () => {
      const origin = `http://127.0.0.1:${server.address().port}`;
      const to = (wanted) => void (mode = wanted);
      resolve({ origin, to, asked, close: () => server.close() });
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await startMock({ port: Number(process.argv[2] ?? 0) });
  console.log(mock.origin);
}
