import { expect, test } from 'vitest';

import { FlameGraph, childrenOf, firstEndingAfter, firstStartingAt, isWithin, leftOf, nodeAt, pathTo } from './graph';
import { foldedOf, graphOf, nameOf, nodeNamed, randomGraph } from './testgraphs';

const small = graphOf('m;a;x 2', 'm;a 1', 'm;b 4', 'z 3');

test('totals, edges and rows of a small graph', () => {
  expect([...small.frame].map((frame) => small.frames[frame]!.name)).toEqual(['all', 'm', 'a', 'x', 'b', 'z']);
  expect([...small.total]).toEqual([10, 7, 3, 2, 4, 3]);
  expect(Array.from({ length: 6 }, (_, node) => leftOf(small, node))).toEqual([0, 0, 0, 0, 3, 7]);
  expect([...small.end]).toEqual([6, 5, 4, 4, 5, 6]);
  expect([...small.rows]).toEqual([0, 1, 5, 2, 4, 3]);
  expect([...small.rowStart]).toEqual([0, 1, 3, 5, 6]);
  expect(childrenOf(small, 1)).toEqual([2, 4]);
  expect(pathTo(small, 3)).toEqual([0, 1, 2, 3]);
});

test('the node at a value is found at its left edge, and not at its right one', () => {
  expect(nodeAt(small, 1, 6.9)).toBe(1);
  expect(nodeAt(small, 1, 7)).toBe(5);
  expect(nodeAt(small, 2, 3)).toBe(4);
  expect(nodeAt(small, 2, 7)).toBe(-1);
  expect(nodeAt(small, 3, 1.99)).toBe(3);
  expect(nodeAt(small, 3, 2)).toBe(-1);
  expect(nodeAt(small, 4, 0)).toBe(-1);
  expect(nodeAt(small, -1, 0)).toBe(-1);
});

test('folded stacks come back from a graph', () => {
  expect(foldedOf(small)).toEqual(['m;a 1', 'm;a;x 2', 'm;b 4', 'z 3']);
  expect(nameOf(small, nodeNamed(small, 'x'))).toBe('x');
});

test('in a random tree children lie within their parents, side by side', () => {
  const graph = randomGraph(20_000, 1);
  // One assertion for all: each takes longer than what it asserts.
  const outside: number[] = [];
  for (let node = 1; node < graph.nodeCount; node++) {
    const parent = graph.parent[node]!;
    const right = leftOf(graph, node) + graph.total[node]!;
    const within =
      isWithin(graph, node, parent) &&
      leftOf(graph, node) >= leftOf(graph, parent) &&
      right <= leftOf(graph, parent) + graph.total[parent]!;
    if (!within) outside.push(node);
  }
  expect(outside).toEqual([]);
  for (let depth = 0; depth <= graph.maxDepth; depth++) {
    let edge = 0;
    for (let place = graph.rowStart[depth]!; place < graph.rowStart[depth + 1]!; place++) {
      const node = graph.rows[place]!;
      expect(leftOf(graph, node)).toBeGreaterThanOrEqual(edge);
      edge = leftOf(graph, node) + graph.total[node]!;
      if (graph.total[node]! > 0) expect(nodeAt(graph, depth, leftOf(graph, node))).toBe(node);
    }
    expect(firstEndingAfter(graph, depth, edge)).toBe(graph.rowStart[depth + 1]);
  }
});

test('the first node that begins at a value is found, wherever the search begins', () => {
  const graph = graphOf(...Array.from({ length: 40 }, (_, index) => `f${String(index).padStart(2, '0')} 10`));
  const [begin, end] = [graph.rowStart[1]!, graph.rowStart[2]!];
  for (let from = begin; from <= end; from++) {
    for (let to = from; to <= end; to++) {
      for (const value of [-1, 0, 5, 10, 195, 390, 400]) {
        const places = Array.from(graph.rows.subarray(from, to), (node) => leftOf(graph, node));
        const expected = places.findIndex((start) => start >= value);
        const found = firstStartingAt(graph.rowLeft, from, to, value);
        if (found !== (expected < 0 ? to : from + expected)) throw new Error(`${from} ${to} ${value}: ${found}`);
      }
    }
  }
});

test('columns that are made when they are asked for are what the file said', () => {
  const graph = randomGraph(20_000, 5);
  const bare = new FlameGraph(graph.frames, graph.frame, graph.depth, graph.self.slice(), graph.maxDepth);
  expect(bare.self).toEqual(graph.self);
  expect(bare.total).toEqual(graph.total);
  expect([...pathTo(bare, 19_999)]).toEqual(pathTo(graph, 19_999));
  for (let node = 1; node < bare.nodeCount; node++) {
    const parent = bare.parent[node]!;
    if (!isWithin(bare, node, parent) || bare.depth[parent]! + 1 !== bare.depth[node]!) throw new Error(`parent of ${node}`);
  }
});
