// What the page asks for and says, without a browser: moments, selections, time lines, the quality of stacks.

import { expect, test } from 'vitest';

import { FrameClass } from '../flamegraph/graph';
import { TreeBuilder } from '../flamegraph/merge';
import { stackQuality, unwindingOf } from '../flamegraph/quality';
import { frameOf, nodeNamed } from '../flamegraph/testgraphs';
import { parseVerdicts } from './api';
import { firstComparison, flamegraphPath, isLive, pprofCommand, selectors, serviceOf, shifted, verdictsPath } from './selection';
import {
  followsNow,
  formatBrush,
  formatMoment,
  formatRange,
  formatSpan,
  momentMs,
  parseBrush,
  rangeOf,
  relativeMs,
  ticksOf,
  toLocalInput,
} from './time';
import { anchorOf, brushBetween, columnsOf, formatRate, highest, movedBrush } from './timeline';
import { DEFAULT_STATE, type UrlState } from './urlstate';

const NOW = Date.UTC(2026, 10, 21, 10, 0, 0);

function stateWith(fields: Partial<UrlState>): UrlState {
  return { ...DEFAULT_STATE, ...fields };
}

test('moments are relative, Unix seconds or RFC 3339, and nothing else', () => {
  expect(momentMs('-15m', NOW)).toBe(NOW - 900e3);
  expect(momentMs('', NOW)).toBe(NOW);
  expect(momentMs('1700000000', NOW)).toBe(1_700_000_000_000);
  expect(momentMs('1700000000.5', NOW)).toBe(1_700_000_000_500);
  expect(momentMs('2026-11-21T09:00:00Z', NOW)).toBe(NOW - 3600e3);
  for (const text of ['-15', '15m', '-m', 'yesterday', '-15m ', '<b>']) expect(momentMs(text, NOW)).toBeUndefined();
  expect(relativeMs('-7d')).toBe(7 * 86_400e3);
});

test('a range that makes no sense is the last quarter of an hour before its end', () => {
  expect(rangeOf('-1h', '', NOW)).toEqual({ fromMs: NOW - 3600e3, toMs: NOW });
  expect(rangeOf('evil', '', NOW)).toEqual({ fromMs: NOW - 900e3, toMs: NOW });
  expect(rangeOf('1700000060', '1700000000', NOW)).toEqual({ fromMs: 1_699_999_100_000, toMs: 1_700_000_000_000 });
  expect(followsNow('-5m', '')).toBe(true);
  expect(followsNow('1700000000', '')).toBe(false);
  expect(followsNow('-5m', '-1m')).toBe(false);
});

test('a brush survives the URL in whole seconds, and is never empty', () => {
  expect(parseBrush(formatBrush({ fromMs: 1_700_000_000_400, toMs: 1_700_000_000_450 }))).toEqual({
    fromMs: 1_700_000_000_000,
    toMs: 1_700_000_001_000,
  });
  for (const text of ['', '5-5', '9-3', '-1-5', '1.5-2', 'a-b']) expect(parseBrush(text)).toBeUndefined();
});

test('the day is said only where it is not today', () => {
  const noon = new Date(2026, 10, 21, 12, 0, 0).getTime();
  expect(formatMoment(noon + 5_000, noon)).toBe('12:00:05');
  expect(formatMoment(noon - 86_400e3, noon, false)).toBe('Nov 20, 12:00');
  expect(formatMoment(new Date(2025, 0, 2, 3, 4, 5).getTime(), noon)).toBe('Jan 2 2025, 03:04:05');
  expect(formatRange({ fromMs: noon - 86_400e3, toMs: noon - 86_399e3 }, noon)).toBe('Nov 20, 12:00:00 – 12:00:01');
  expect(Date.parse(toLocalInput(noon))).toBe(noon);
  expect([0, 59e3, 60e3, 5400e3, 90_000e3].map(formatSpan)).toEqual(['0 s', '59 s', '1 min', '1 h 30 min', '1 d 1 h']);
});

test('ticks stand at round times inside the range, and not too many', () => {
  const range = { fromMs: NOW - 900e3 - 3_000, toMs: NOW };
  const ticks = ticksOf(range, 8);
  expect(ticks.length).toBeGreaterThan(5);
  expect(ticks.length).toBeLessThan(10);
  for (const tick of ticks) {
    expect(tick % 120e3).toBe(0);
    expect(tick >= range.fromMs && tick < range.toMs).toBe(true);
  }
  expect(ticksOf({ fromMs: 0, toMs: 1e13 }, 0).length).toBeLessThanOrEqual(50);
});

test('each side asks for its own service and time, and for the same of all else', () => {
  const state = stateWith({ service: 'a b', pid: '7', compare: 'on', baseService: '*', brush: '100-200', baseBrush: '50-90' });
  expect(selectors(state, 'after', 'brushed').toString()).toBe('service=a+b&pid=7&from=100&to=200');
  expect(selectors(state, 'before', 'brushed').toString()).toBe('pid=7&from=50&to=90');
  expect(selectors(state, 'before', 'whole').toString()).toBe('pid=7&from=-15m');
  expect(serviceOf(stateWith({ service: 'x' }), 'before')).toBe('x');
  expect(flamegraphPath(DEFAULT_STATE, 'after', 'pprof')).toBe('api/v1/profiles/flamegraph?format=pprof&from=-15m');
});

test('only a range that ends now is live', () => {
  expect(isLive(DEFAULT_STATE)).toBe(true);
  expect(isLive(stateWith({ live: 'off' }))).toBe(false);
  expect(isLive(stateWith({ to: '1700000000' }))).toBe(false);
  expect(isLive(stateWith({ source: 'api/v1/spans/1/flamegraph' }))).toBe(false);
});

test('a comparison begins with two halves, or with as much before the mark', () => {
  const seconds = NOW / 1e3;
  expect(firstComparison(DEFAULT_STATE, NOW, 0)).toEqual({
    compare: 'on',
    baseBrush: `${seconds - 900}-${seconds - 450}`,
    brush: `${seconds - 450}-${seconds}`,
  });
  expect(firstComparison(stateWith({ brush: '1000-1100' }), NOW, 900e3)).toEqual({ compare: 'on', baseBrush: '900-1000' });
  // Nothing was kept before the mark.
  expect(firstComparison(stateWith({ brush: '1000-1100' }), NOW, 950e3)).toMatchObject({ baseBrush: '1000-1050', brush: '1050-1100' });
  // The server has run for a minute.
  expect(firstComparison(DEFAULT_STATE, NOW, NOW - 60e3)).toMatchObject({
    baseBrush: `${seconds - 60}-${seconds - 30}`,
    brush: `${seconds - 30}-${seconds}`,
  });
  expect(firstComparison(DEFAULT_STATE, NOW, NOW).brush).toBe(`${seconds - 1}-${seconds}`);
});

test('a range is moved into the past, and back to the present', () => {
  const before = shifted(DEFAULT_STATE, -1, NOW);
  expect(before).toEqual({ from: String(NOW / 1e3 - 1350), to: String(NOW / 1e3 - 450), brush: '' });
  expect(shifted(stateWith(before), 1, NOW)).toEqual({ from: '-900s', to: '', brush: '' });
});

test('the command for a shell is of the range that is seen, and nothing gets out of its quotes', () => {
  const command = pprofCommand(stateWith({ service: "x'; rm -rf /", pid: '7' }), 'after', 'http://h:1/', NOW);
  expect(command).toContain(`from=${NOW / 1e3 - 900}&to=${NOW / 1e3}`);
  expect(command.match(/'/g)?.length).toBe(2);
  expect(command).toMatch(/^go tool pprof -http=: 'http:\/\/h:1\/debug\/pprof\/profile\?service=x%27/);
});

test('a spike narrower than a pixel is drawn, a gap is none', () => {
  const points = [...Array(1000).keys()].map((place) => ({ ms: place * 1e3, value: place === 333 ? 5e9 : 1e9 }));
  const columns = columnsOf({ stepMs: 1e3, points: points.slice(0, 900) }, { fromMs: 0, toMs: 1e6 }, 100);
  expect(columns[33]).toBe(5e9);
  expect(highest(columns)).toBe(5e9);
  expect(columns[89]).toBe(1e9);
  expect(columns[90]).toBeNaN();
  expect(highest(columnsOf({ stepMs: 0, points: [] }, { fromMs: 0, toMs: 1 }, 10))).toBe(0);
});

test('CPU time a second is cores', () => {
  expect(formatRate(1.5e9, 'cpu', 'nanoseconds')).toBe('1.50 cores');
  expect(formatRate(0.012e9, 'cpu', 'nanoseconds')).toBe('0.012 cores');
  expect(formatRate(31.62e9, 'cpu', 'nanoseconds')).toBe('31.6 cores');
  expect(formatRate(2e9, 'offcpu', 'nanoseconds')).toBe('2.00 threads');
  expect(formatRate(2048, 'alloc', 'bytes')).toBe('2 KiB/s');
});

test('a brush is drawn between two places, taken by an edge, and moved by keys', () => {
  const range = { fromMs: 0, toMs: 100e3 };
  expect(brushBetween(10, 60, range, 100)).toEqual({ fromMs: 10e3, toMs: 60e3 });
  expect(brushBetween(60, -20, range, 100)).toEqual({ fromMs: 0, toMs: 60e3 });
  expect(brushBetween(60, 61, range, 100)).toBeUndefined();
  const brush = { fromMs: 10e3, toMs: 60e3 };
  expect(anchorOf(58, brush, range, 100)).toBe(10);
  expect(anchorOf(12, brush, range, 100)).toBe(60);
  expect(anchorOf(35, brush, range, 100)).toBe(35);
  expect(movedBrush(undefined, -1, false, range)).toEqual({ fromMs: 80e3, toMs: 100e3 });
  expect(movedBrush(brush, 1, false, range)).toEqual({ fromMs: 15e3, toMs: 65e3 });
  expect(movedBrush(brush, -1, true, range)).toEqual({ fromMs: 10e3, toMs: 55e3 });
  expect(movedBrush({ fromMs: 95e3, toMs: 100e3 }, 1, false, range).toMs).toBe(100e3);
});

test('what hangs below a marker is incomplete, by reason and by process', () => {
  const frames = [
    { ...frameOf('all'), frameClass: FrameClass.Root },
    { ...frameOf('web'), frameClass: FrameClass.Label, module: 'comm' },
    { ...frameOf('db'), frameClass: FrameClass.Label, module: 'comm' },
    { ...frameOf('[incomplete: no_table]'), frameClass: FrameClass.Incomplete, module: 'There is no table.' },
    frameOf('main'),
    frameOf('f'),
  ];
  const builder = new TreeBuilder(frames);
  const add = (value: number, ...path: number[]): void =>
    builder.addSelf(
      path.reduce((parent, frame) => builder.child(parent, frame), 0),
      value,
    );
  add(60, 1, 4, 5);
  add(30, 1, 3, 5);
  add(10, 2, 4);
  const { graph } = builder.build();
  const quality = stackQuality(graph);
  expect(quality.incomplete).toBe(30);
  expect(quality.reasons).toEqual([{ name: '[incomplete: no_table]', sentence: 'There is no table.', value: 30 }]);
  expect(quality.processes).toEqual([
    { name: 'web', value: 90, incomplete: 30 },
    { name: 'db', value: 10, incomplete: 0 },
  ]);
  expect(unwindingOf(graph, 0)).toEqual({ state: 'partly', incomplete: 30 });
  expect(unwindingOf(graph, nodeNamed(graph, 'db'))).toEqual({ state: 'complete' });
  const marker = nodeNamed(graph, '[incomplete: no_table]');
  expect(unwindingOf(graph, marker + 1).state).toBe('incomplete');
});

test('what is certain is asked of both sides, each with parameters of its own', () => {
  const state = stateWith({ service: 'shop', type: 'cpu', pid: '7', from: '-1h', compare: 'on', baseService: '*', baseBrush: '100-200', brush: '200-300' });
  const [path, query] = verdictsPath(state).split('?');
  expect(path).toBe('api/v1/profiles/verdicts');
  expect(Object.fromEntries(new URLSearchParams(query))).toEqual({
    type: 'cpu', service: 'shop', pid: '7', from: '200', to: '300', base_pid: '7', base_from: '100', base_to: '200',
  });
});

test('verdicts that make no sense are none', () => {
  const verdicts = parseVerdicts({
    decided: true,
    min_share: 0.01,
    new: { stretches: 10 },
    functions: [
      { name: 'f', frames: [{ name: 'f', module: '/x' }, { name: 'f.old', module: '/x' }, 7], self: { verdict: 'regressed', effect: 0.5, low: 0.4, high: null }, total: null },
      { name: 'g', frames: [], self: { verdict: 'splendid' }, total: 3 },
      'h',
    ],
  });
  expect([verdicts.decided, verdicts.reason, verdicts.minShare, verdicts.stretches]).toEqual([true, '', 0.01, 10]);
  expect(verdicts.functions.map(({ name }) => name)).toEqual(['f']);
  expect([...verdicts.ofFrame.keys()]).toEqual(['f\0/x', 'f.old\0/x']);
  expect(verdicts.functions[0]).toMatchObject({ self: { verdict: 'regressed', effect: 0.5, low: 0.4, high: undefined }, total: undefined });
  expect(() => parseVerdicts({ decided: true })).toThrow('functions');
});
