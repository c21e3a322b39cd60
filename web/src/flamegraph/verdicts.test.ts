import { describe, expect, test } from 'vitest';

import { detailsOf, treeItems } from './details';
import { diff, type DiffGraph } from './diff';
import { functionKey } from './functions';
import { graphOf, nameOf, nodeNamed } from './testgraphs';
import { Painter, type Surface } from './painter';
import { Mark, Marks, lineText, markText, summaryOf, verdictRows, type FunctionVerdict, type LineVerdict, type Verdicts } from './verdicts';
import { layoutOf } from './view';

const line = (verdict: LineVerdict['verdict'], effect: number, more: Partial<LineVerdict> = {}): LineVerdict => ({
  verdict,
  effect,
  low: effect - 0.05,
  high: effect + 0.05,
  smallestEffect: 0.1,
  ...more,
});
const MEASURE = { kind: 'cpu', unit: 'nanoseconds' };

/** `hot` costs more, but not in `b`; `cold` costs less; `calm` seems to differ; nothing is known of `tiny`. */
const compared = (verdicts: Partial<Verdicts> = {}): DiffGraph => {
  const before = graphOf('m;a;hot 20', 'm;b;hot 10', 'm;cold 40', 'm;calm 28', 'm;tiny 2');
  const after = graphOf('m;a;hot 45', 'm;b;hot 8', 'm;cold 20', 'm;calm 25', 'm;tiny 2');
  const both = diff(before, after, 'share');
  const functions: FunctionVerdict[] = [
    { name: 'hot', movedFrom: '', self: line('regressed', 0.77), total: undefined },
    { name: 'cold', movedFrom: '', self: line('unchanged', 0), total: line('improved', -0.5) },
    { name: 'calm', movedFrom: '', self: line('inconclusive', -0.1), total: undefined },
  ];
  const ofFrame = new Map(functions.map((one) => [`${one.name}\0/bin/x`, one]));
  const all = { decided: true, reason: '', minShare: 0.01, stretches: 10, ofFrame, functions, ...verdicts };
  return { ...both, marks: new Marks(both.graph.frames, all) };
};
const below = (comparison: DiffGraph, caller: string): number => nodeNamed(comparison.graph, caller) + 1;

describe('marks', () => {
  test('a frame is certain where its function is and its own place went the same way', () => {
    const comparison = compared();
    const marks = comparison.marks!;
    const of = (node: number): Mark => marks.markOf(comparison, node);
    expect(of(below(comparison, 'a'))).toBe(Mark.Certain);
    expect(of(below(comparison, 'b'))).toBe(Mark.None);
    expect(markText(comparison, below(comparison, 'b'))).toBe('the function takes certainly more, this place of it does not');
    expect(of(nodeNamed(comparison.graph, 'cold'))).toBe(Mark.Certain);
    expect(markText(comparison, nodeNamed(comparison.graph, 'cold'))).toBe('certainly less');
    expect(of(nodeNamed(comparison.graph, 'calm'))).toBe(Mark.Noise);
    for (const name of ['m', 'tiny']) expect(of(nodeNamed(comparison.graph, name))).toBe(Mark.None);
    expect([of(0), functionKey(comparison.graph.frames[0]!)]).toEqual([Mark.None, 'all\0/bin/x']);
  });

  test('from one certain frame to the next, around', () => {
    const comparison = compared();
    const next = (from: number, step: 1 | -1): string =>
      nameOf(comparison.graph, comparison.marks!.nextCertain(comparison, from, step));
    expect([next(0, 1), next(below(comparison, 'a'), 1), next(nodeNamed(comparison.graph, 'cold'), 1)]).toEqual(['hot', 'cold', 'hot']);
    expect(next(0, -1)).toBe('cold');
    const none = compared({ ofFrame: new Map() });
    expect(none.marks!.nextCertain(none, 0, 1)).toBe(-1);
  });

  test('the panel, the tooltip and the tree say the same, with the interval', () => {
    const comparison = compared();
    const hot = below(comparison, 'a');
    expect(detailsOf(comparison.graph, hot, 0, MEASURE, comparison).verdict).toEqual([
      ['verdict', 'certainly more'],
      ['function itself', '+77.0 % (95 %: +72.0 % to +82.0 %)'],
    ]);
    const calm = verdictRows(comparison, nodeNamed(comparison.graph, 'calm'));
    expect(calm[0]).toEqual(['verdict', 'within noise']);
    expect(calm.at(-1)).toEqual(['would have been seen', 'from +10.0 %']);
    expect(verdictRows(comparison, nodeNamed(comparison.graph, 'tiny'))).toEqual([
      ['verdict', 'not judged: below 1.0 %, or on (nearly) every stack'],
    ]);
    expect(verdictRows(comparison, 0)).toEqual([]);
    const item = treeItems(comparison.graph, hot, 0, MEASURE, comparison).find(({ node }) => node === hot);
    expect(item!.label.endsWith(', certainly more')).toBe(true);
    const unmarked = { ...comparison, marks: undefined };
    expect(detailsOf(comparison.graph, hot, 0, MEASURE, unmarked).verdict).toEqual([]);
    expect(markText(unmarked, hot)).toBe('');
  });

  test('figures that have no end, or nothing to be compared with', () => {
    expect(lineText(line('regressed', 0.5, { high: undefined }))).toBe('+50.0 % (95 %: +45.0 % to any)');
    expect(lineText(line('regressed', 0.5, { low: undefined }))).toBe('+50.0 %');
    expect(lineText(line('regressed', 0, { effect: undefined }))).toBe('new');
    expect(lineText(line('improved', -1))).toBe('gone');
  });

  test('a line sums it up, or says why there are no marks', () => {
    expect(summaryOf(compared().marks!.verdicts)).toBe('2 functions have certainly changed, 1 within noise');
    expect(summaryOf(compared({ functions: [] }).marks!.verdicts)).toBe('No function has certainly changed, 0 within noise');
    expect(summaryOf(compared({ decided: false, reason: 'B is short' }).marks!.verdicts)).toBe('No marks: B is short');
  });
});

test('a certain box has a border and a sign, one within noise is hatched inside its own edges', () => {
  const comparison = compared();
  const { graph } = comparison;
  const widthPx = 1000;
  const texts: string[] = [];
  const borders: number[] = [];
  const hatched: [number, number][] = [];
  const surface: Surface = {
    fillStyle: '', strokeStyle: '', lineWidth: 1, font: '', textBaseline: 'middle', globalAlpha: 1,
    fillRect: () => undefined,
    strokeRect: (left, _top, width) => void borders.push(left, width),
    fillText: (text) => void texts.push(text),
    measureText: (text: string) => ({ width: text.length * 6 }) as TextMetrics,
    beginPath: () => undefined,
    moveTo: (x, y) => void hatched.push([x, y]),
    lineTo: (x, y) => void hatched.push([x, y]),
    stroke: () => undefined,
  };
  const painter = new Painter();
  const layout = layoutOf(graph, 0, 'icicle', widthPx, 100, 19);
  painter.paint(surface, {
    graph, comparison, layout, heightPx: 100, scrollPx: 0, density: 1, theme: 'light', zoom: 0, selected: -1, hovered: -1, hits: undefined,
  });
  expect(painter.marked).toEqual({ certain: 2, noise: 1 });
  expect(borders.length).toBe(4);
  expect(texts.filter((text) => text === '▲').length).toBe(1);
  expect(texts.filter((text) => text === '▼').length).toBe(1);
  // Children stand from the left in the order of their names: a, b, calm, cold, tiny.
  const left = (graph.total[nodeNamed(graph, 'a')]! + graph.total[nodeNamed(graph, 'b')]!) / graph.total[0]! * widthPx;
  const right = left + (graph.total[nodeNamed(graph, 'calm')]! / graph.total[0]!) * widthPx;
  expect(hatched.length).toBeGreaterThan(10);
  for (const [x, y] of hatched) {
    expect(x).toBeGreaterThanOrEqual(left - 1);
    expect(x).toBeLessThanOrEqual(right + 1);
    expect(y).toBeGreaterThanOrEqual(2 * 19);
    expect(y).toBeLessThanOrEqual(3 * 19);
  }
});
