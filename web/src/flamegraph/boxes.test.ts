import { describe, expect, test } from 'vitest';

import { RowBoxes, boxesOfRow, type Window } from './boxes';
import { leftOf, type FlameGraph } from './graph';
import { search } from './search';
import { graphOf, nameOf, nodeNamed, randomGraph, randomNumbers } from './testgraphs';

function boxes(graph: FlameGraph, depth: number, window: Window, word?: string): string[] {
  const found = new RowBoxes();
  const hits = word === undefined ? undefined : search(graph, (frame) => frame.name.includes(word));
  boxesOfRow(graph, depth, window, hits, found);
  const texts: string[] = [];
  for (let box = 0; box < found.count; box++) {
    const node = found.node[box]!;
    const name = node < 0 ? 'run' : nameOf(graph, node);
    texts.push(`${found.left[box]!}-${found.right[box]!} ${name}${found.hit[box] === 1 ? ' hit' : ''}`);
  }
  return texts;
}

const everything = (graph: FlameGraph, widthPx: number): Window => ({ from: 0, to: graph.total[0]!, widthPx });

describe('boxes of a row', () => {
  test('fill the row from edge to edge', () => {
    const graph = graphOf('a 1', 'b 2', 'c 1');
    expect(boxes(graph, 1, everything(graph, 8))).toEqual(['0-2 a', '2-6 b', '6-8 c']);
  });

  test('narrower than a pixel become one run, and a wide one between them stays', () => {
    const lines = ['k 500'];
    for (let index = 0; index < 26; index++) lines.push(`${String.fromCharCode(97 + index)}x 1`);
    const graph = graphOf(...lines);
    // 526 units in 263 pixels: half a pixel each; `k` stands between `jx` and `kx`.
    expect(boxes(graph, 1, everything(graph, 263))).toEqual(['0-5 run', '5-255 k', '255-263 run']);
  });

  test('a gap in a row ends a run', () => {
    const graph = graphOf('a;x 1', 'b 100', 'c;y 1');
    expect(boxes(graph, 2, everything(graph, 51))).toEqual(['0-1 run', '50-51 run']);
  });

  test('outside of the window are not there, and those across its edge are clipped', () => {
    const graph = graphOf('a 4', 'b 4', 'c 4');
    expect(boxes(graph, 1, { from: 2, to: 8, widthPx: 60 })).toEqual(['0-20 a', '20-60 b']);
    expect(boxes(graph, 1, { from: 4, to: 8, widthPx: 60 })).toEqual(['0-60 b']);
    expect(boxes(graph, 0, { from: 4, to: 8, widthPx: 60 })).toEqual(['0-60 all']);
  });

  test('a hit in a run marks the run, also where a box wants its pixel', () => {
    const graph = graphOf('a 1', 'b 1000', 'c 1');
    expect(boxes(graph, 1, everything(graph, 100), 'a')).toEqual(['0-1 run hit', '1-100 b']);
    expect(boxes(graph, 1, everything(graph, 100), 'c')).toEqual(['0-99 b', '99-100 run hit']);
    expect(boxes(graph, 1, everything(graph, 100), 'b')).toEqual(['0-100 b hit']);
  });

  test('an empty window, a row that does not exist and no width give nothing', () => {
    const graph = graphOf('a 1');
    expect(boxes(graph, 1, { from: 0, to: 0, widthPx: 10 })).toEqual([]);
    expect(boxes(graph, 9, everything(graph, 10))).toEqual([]);
    expect(boxes(graph, 1, everything(graph, 0))).toEqual([]);
  });

  test('every pixel that a node covers is drawn, in any window of a random tree, and none twice', () => {
    const graph = randomGraph(5_000, 3);
    const random = randomNumbers(4);
    const found = new RowBoxes();
    const hitNode = nodeNamed(graph, nameOf(graph, 2_500));
    const hits = search(graph, (frame) => frame.name === nameOf(graph, hitNode));
    for (let round = 0; round < 300; round++) {
      const widthPx = 20 + Math.floor(random() * 400);
      const from = random() * graph.total[0]! * 0.9;
      const to = from + (graph.total[0]! - from) * Math.max(0.001, random() ** 4);
      const depth = Math.floor(random() * (graph.maxDepth + 1));
      const scale = widthPx / (to - from);
      boxesOfRow(graph, depth, { from, to, widthPx }, hits, found);
      const drawn = new Uint8Array(widthPx);
      for (let box = 0; box < found.count; box++) {
        expect(found.left[box]!).toBeLessThan(found.right[box]!);
        for (let pixel = found.left[box]!; pixel < found.right[box]!; pixel++) {
          expect(drawn[pixel], `pixel ${pixel} of row ${depth}`).toBe(0);
          drawn[pixel] = found.hit[box] === 1 ? 2 : 1;
        }
      }
      for (let place = graph.rowStart[depth]!; place < graph.rowStart[depth + 1]!; place++) {
        const node = graph.rows[place]!;
        if (graph.total[node] === 0) continue;
        const left = (leftOf(graph, node) - from) * scale;
        const right = left + graph.total[node]! * scale;
        // Rounding may move an edge by a pixel; what is two pixels wide is seen in any case.
        const middle = Math.floor((left + right) / 2);
        if (middle < 1 || middle >= widthPx - 1) continue;
        const near = drawn.subarray(Math.max(0, middle - 1), middle + 2);
        expect(near.some((pixel) => pixel > 0), `node ${node} at ${left}-${right}`).toBe(true);
        if (hits.isHit[node] === 1) expect(near.some((pixel) => pixel === 2), `hit ${node} at ${left}`).toBe(true);
      }
    }
  });
});
