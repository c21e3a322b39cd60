// A million nodes: what each step takes is printed and not asserted, what comes out is.

import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';

import { RowBoxes, boxesOfRow } from './boxes';
import { decodeColumnar } from './columnar';
import { diff } from './diff';
import { functionTotals, functionsOf, sandwich } from './functions';
import type { FlameGraph } from './graph';
import { nodeOfPath, nodePath } from './nodepath';
import { Painter, type Surface } from './painter';
import { parseQuery, search } from './search';
import { encodeForTest, randomGraph } from './testgraphs';
import { layoutOf } from './view';

const NODES = 1_000_000;
const WIDTH_PX = 1600;

/** Counts what is drawn and checks that it lies on the canvas. */
function countingSurface(): Surface & { rectangles: number; texts: number } {
  const surface = {
    rectangles: 0,
    texts: 0,
    fillStyle: '',
    strokeStyle: '',
    lineWidth: 1,
    font: '',
    textBaseline: 'middle' as const,
    globalAlpha: 1,
    fillRect: (left: number, _top: number, width: number): void => {
      if (left < 0 || width <= 0 || left + width > WIDTH_PX) throw new Error(`drawn at ${left}, ${width} wide`);
      surface.rectangles++;
    },
    strokeRect: (): void => undefined,
    beginPath: (): void => undefined,
    moveTo: (): void => undefined,
    lineTo: (): void => undefined,
    stroke: (): void => undefined,
    fillText: (): void => {
      surface.texts++;
    },
    measureText: (text: string) => ({ width: text.length * 6.5 }) as TextMetrics,
  };
  return surface;
}

test('a million nodes are decoded, drawn, searched, merged and compared', { timeout: 120_000 }, () => {
  const timed = <Result>(what: string, work: () => Result): Result => {
    const begun = performance.now();
    const result = work();
    console.log(`${what}: ${(performance.now() - begun).toFixed(1)} ms`);
    return result;
  };
  const original = randomGraph(NODES, 11);
  const bytes = encodeForTest(original);
  console.log(`columnar: ${bytes.length} bytes, ${gzipSync(bytes).length} after gzip`);
  const { graph } = timed('decode and lay out', () => decodeColumnar(bytes));
  expect(graph.total[0]).toBe(original.total[0]);
  expect(Buffer.from(graph.frame.buffer).equals(Buffer.from(original.frame.buffer))).toBe(true);

  const found = new RowBoxes();
  let boxCount = 0;
  timed('find the boxes of all rows', () => {
    for (let depth = 0; depth <= graph.maxDepth; depth++) {
      boxesOfRow(graph, depth, { from: 0, to: graph.total[0]!, widthPx: WIDTH_PX }, undefined, found);
      boxCount += found.count;
    }
  });
  console.log(`${boxCount} boxes in ${graph.maxDepth + 1} rows`);
  expect(boxCount).toBeLessThan((graph.maxDepth + 1) * WIDTH_PX);

  const query = parseQuery('function_123');
  if (query?.ok !== true) throw new Error('a sound query');
  const result = timed('search', () => search(graph, query.matches));
  expect(result.hits.length).toBeGreaterThan(0);

  const painter = new Painter();
  const surface = countingSurface();
  const paint = (graph: FlameGraph, zoom: number): number =>
    painter.paint(surface, {
      graph,
      comparison: undefined,
      layout: layoutOf(graph, zoom, 'icicle', WIDTH_PX, 1000, 19),
      heightPx: 1000,
      scrollPx: 0,
      density: 1,
      theme: 'light',
      zoom,
      selected: zoom,
      hovered: -1,
      hits: result,
    });
  timed('paint, without a screen', () => paint(graph, 0));
  timed('paint again', () => paint(graph, 0));
  timed('paint zoomed', () => paint(graph, result.hits[1000]!));
  expect(surface.texts).toBeGreaterThan(0);

  const totals = timed('top table', () => functionTotals(graph));
  const { ofFrame } = functionsOf(graph.frames);
  const id = ofFrame[graph.frame[result.hits[0]!]!]!;
  const both = timed('sandwich', () => sandwich(graph, id));
  expect(both.callees.total[0]).toBe(totals.total[id]);
  const node = 654_321;
  const path = nodePath(graph, node);
  const again = decodeColumnar(bytes).graph;
  expect(nodePath(graph, timed('find a node by its path', () => nodeOfPath(again, path)))).toBe(path);
  const same = timed('compare with itself', () => diff(graph, graph, 'absolute'));
  expect(same.graph.total[0]).toBe(2 * graph.total[0]!);
});
